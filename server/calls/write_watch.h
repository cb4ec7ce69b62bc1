// Detects, while a write is in flight, a client that does not read or a stream
// past its deadline. Not thread-safe: the stream's lock guards it.
#ifndef QKSCOPE_SERVER_CALLS_WRITE_WATCH_H_
#define QKSCOPE_SERVER_CALLS_WRITE_WATCH_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/base/monotonic.h"
#include "grpc/grpc.h"
#include "grpcpp/server_context.h"
#include "server/common/cancel_reason.h"

namespace qk {

class WriteWatch {
 public:
  struct Verdict {
    CancelReason reason;
    std::string message;
  };

  void Begin() { started_ = MonotonicNow(); }
  void End() { started_.reset(); }
  bool writing() const { return started_.has_value(); }

  std::optional<Verdict> Check(absl::Time now, absl::Duration stall,
                               absl::Time deadline) const {
    if (!writing()) return std::nullopt;
    if (now > deadline) {
      return Verdict{CancelReason::kDeadline, "deadline exceeded"};
    }
    if (now - *started_ < stall) return std::nullopt;
    return Verdict{
        CancelReason::kStalled,
        absl::StrCat("the client read nothing for ",
                     absl::ToInt64Milliseconds(now - *started_), " ms")};
  }

  // Cancels the call if a write is in flight. A status that is set this way
  // reaches the client without waiting for flow control. The pending write
  // keeps the gRPC call alive until then.
  void CancelCall(grpc::CallbackServerContext* context,
                  const absl::Status& reason) const {
    if (!writing()) return;
    // absl's codes are gRPC's.
    grpc_call_cancel_with_status(
        context->c_call(), static_cast<grpc_status_code>(reason.code()),
        std::string(reason.message()).c_str(), nullptr);
  }

 private:
  std::optional<absl::Time> started_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_WRITE_WATCH_H_
