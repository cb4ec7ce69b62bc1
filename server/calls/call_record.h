// One call: authenticates and authorizes it, and records it in the metrics and
// the log, however it ends.
#ifndef QKSCOPE_SERVER_CALLS_CALL_RECORD_H_
#define QKSCOPE_SERVER_CALLS_CALL_RECORD_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "server/calls/server_core.h"
#include "server/common/traceparent.h"
#include "server/common/user.h"

namespace qk {

struct ConvertedStatus;

// What bounds a call's duration.
enum class DeadlineRule {
  kServer,  // Limits::max_deadline_ms, or an earlier deadline of the client
  kClient,  // the client's deadline only; without one, nothing
};

class CallRecord {
 public:
  // `method`: the RPC's name without its service.
  CallRecord(const CallParts* parts, grpc::CallbackServerContext* context,
             const char* method);
  // Counts the call as ended. A call that was never finished ends as INTERNAL.
  ~CallRecord();
  CallRecord(const CallRecord&) = delete;
  CallRecord& operator=(const CallRecord&) = delete;

  // Every call begins with this, before the request is examined. Fails with
  // UNAVAILABLE if the server drains, UNAUTHENTICATED, PERMISSION_DENIED (all
  // RPCs outside the Analysis service need an operator), DEADLINE_EXCEEDED if
  // the deadline has passed, INVALID_ARGUMENT if it is too far in the future
  // (but a deadline more than a day away counts as none).
  absl::Status Open(DeadlineRule rule = DeadlineRule::kServer);

  // The caller as of Open, even if the users file changes later. Requires that
  // Open has succeeded.
  const std::shared_ptr<const User>& user() const;
  // A time of MonotonicNow, as all times of calls.
  absl::Time deadline() const { return deadline_; }
  // Finds only models that the user may use.
  ConvertContext convert_context() const;
  // Adds the input's text to the log line if `log_prompts` is set.
  void KeepPrompt(const pb::Input& input);

  // Describes the call to the scheduler. The fields below must be set before.
  std::shared_ptr<ScheduledRequest> MakeRequest(
      Priority priority, std::function<void(int)> on_position) const;

  // Returns the status for the client. The first call also updates the metrics
  // and writes the log line. OK for a call that was never opened becomes
  // INTERNAL.
  grpc::Status Finish(const absl::Status& status);

  const std::string& id() const { return id_; }
  absl::Time start() const { return start_; }
  // Of the caller.
  const std::optional<TraceParent>& trace() const { return trace_; }

  // For the log line.
  std::string model;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t arms = 0;
  int64_t streamed_bytes = 0;

  // Call before Finish if the call has made a request: if it has run, the log
  // line and the metrics get how long its phases took, and the metrics the
  // tokens above. `stream_seconds`: 0 if it has streamed nothing.
  void SetPhases(const ScheduledRequest& request, double stream_seconds);

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
  std::optional<PhaseSeconds> phases_;  // nullopt: nothing has run
  bool finished_ = false;
};

// How long the phases of a request have taken, whose call began at `start`.
// nullopt: none of its runs has begun.
std::optional<PhaseSeconds> PhasesOf(const ScheduledRequest& request,
                                     absl::Time start, double stream_seconds);
// Appends all but the queue's time to a log line, in milliseconds.
void AppendTimes(const PhaseSeconds& phases, std::vector<LogField>* fields);
// Appends the caller's trace, if there is one, to a log line.
void AppendTrace(const std::optional<TraceParent>& trace,
                 std::vector<LogField>* fields);

// What the caller shows. It refers to the context.
Credentials CredentialsOf(const grpc::CallbackServerContext& context);

// The role that an RPC needs: every user may call the Analysis service, only
// operators may call others.
UserRole RequiredRole(const std::string& method);

// Why gRPC cancelled the call: its deadline passed, or its client cancelled.
absl::Status CancelledReason(const grpc::CallbackServerContext& context);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_CALL_RECORD_H_
