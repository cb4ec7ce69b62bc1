// One call: who makes it and whether that is allowed, and its place in metrics
// and log, whatever becomes of it.
#ifndef QKSCOPE_SERVER_CALLS_CALL_RECORD_H_
#define QKSCOPE_SERVER_CALLS_CALL_RECORD_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "server/calls/server_core.h"
#include "server/common/traceparent.h"
#include "server/common/user.h"

namespace qk {

struct ConvertedStatus;

// What bounds a call whose client sets a deadline, or none.
enum class DeadlineRule {
  kServer,  // Limits::max_deadline_ms
  kClient,  // nothing else: the call may go on for hours
};

class CallRecord {
 public:
  // `method` is an RPC's name without its service.
  CallRecord(const CallParts* parts, grpc::CallbackServerContext* context,
             const char* method);
  // Counts the call as ended. A call without Finish was lost: INTERNAL.
  ~CallRecord();
  CallRecord(const CallRecord&) = delete;
  CallRecord& operator=(const CallRecord&) = delete;

  // What every call begins with, before anything of the request is looked at:
  // UNAVAILABLE when the server drains, UNAUTHENTICATED, PERMISSION_DENIED (all
  // methods but those of the service Analysis need an operator),
  // DEADLINE_EXCEEDED when it is over, INVALID_ARGUMENT when it is too far.
  absl::Status Open(DeadlineRule rule = DeadlineRule::kServer);

  // Once open. The user stays what it was when the call began.
  const std::shared_ptr<const User>& user() const;
  absl::Time deadline() const { return deadline_; }
  // Knows the models that exist for the user.
  ConvertContext convert_context() const;
  // Adds the input's text to the log line where the configuration wants that.
  void KeepPrompt(const pb::Input& input);

  // What the scheduler is to know of the call, once the fields below are set.
  std::shared_ptr<ScheduledRequest> MakeRequest(
      Priority priority, std::function<void(int)> on_position) const;

  // Measures and logs the end, once, and says what goes to the client. A call
  // that was never opened cannot end well.
  grpc::Status Finish(const absl::Status& status);

  const std::string& id() const { return id_; }
  absl::Time start() const { return start_; }

  // For the log line.
  std::string model;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t arms = 0;
  int64_t streamed_bytes = 0;
  double queue_seconds = 0;

 private:
  absl::Status Authenticate();
  absl::Status SetDeadline(DeadlineRule rule);
  void WriteLog(const absl::Status& status, const ConvertedStatus& converted,
                double seconds);

  const CallParts* const parts_;
  grpc::CallbackServerContext* const context_;
  const char* const method_;
  const std::string id_;
  const absl::Time start_;
  const std::optional<TraceParent> trace_;
  std::shared_ptr<const User> user_;
  absl::Time deadline_ = absl::InfiniteFuture();
  std::string prompt_;
  bool finished_ = false;
};

// Who may call an RPC: those of the service Analysis are everybody's, all
// others the operators'.
UserRole RequiredRole(const std::string& method);

// Why gRPC says a call is cancelled: its deadline, or its client.
absl::Status CancelledReason(const grpc::CallbackServerContext& context);
// The same for the metrics.
CancelReason CancelReasonOf(const absl::Status& reason);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_CALL_RECORD_H_
