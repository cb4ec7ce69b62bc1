// One call's place in metrics and log, whatever becomes of it.
#ifndef QKSCOPE_SERVER_CALL_RECORD_H_
#define QKSCOPE_SERVER_CALL_RECORD_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"
#include "server/server_core.h"

namespace qk {

class CallRecord {
 public:
  CallRecord(const ServerCore* core, const char* method);
  // Counts the call as ended. A call without Finish was lost: INTERNAL.
  ~CallRecord();
  CallRecord(const CallRecord&) = delete;
  CallRecord& operator=(const CallRecord&) = delete;

  // Measures and logs the end, once, and says what goes to the client.
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
  const ServerCore* const core_;
  const char* const method_;
  const std::string id_;
  const absl::Time start_;
  bool finished_ = false;
};

// The call's own deadline, or the server's where it has none.
// DEADLINE_EXCEEDED: it is over. INVALID_ARGUMENT: later than the server's.
absl::StatusOr<absl::Time> CallDeadline(
    const grpc::CallbackServerContext& context, const Limits& limits);

// Why gRPC says a call is cancelled: its deadline, or its client.
absl::Status CancelledReason(const grpc::CallbackServerContext& context);
// The same for the metrics.
CancelReason CancelReasonOf(const absl::Status& reason);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALL_RECORD_H_
