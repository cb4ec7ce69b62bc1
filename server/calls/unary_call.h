// A unary call whose message is read, and whose answer is made, when it is the
// user's turn (server/schedule/host_work.h). The caller is authenticated
// before.
#ifndef QKSCOPE_SERVER_CALLS_UNARY_CALL_H_
#define QKSCOPE_SERVER_CALLS_UNARY_CALL_H_

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/check.h"
#include "engine/base/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/calls/call_record.h"
#include "server/calls/call_tracker.h"
#include "server/calls/post_work.h"
#include "server/calls/server_core.h"
#include "server/common/byte_pool.h"
#include "server/events/raw_message.h"

namespace qk {

class UnaryCall : public grpc::ServerUnaryReactor,
                  public LiveCall,
                  public std::enable_shared_from_this<UnaryCall> {
 public:
  // Returns the answer.
  using Handle = std::function<absl::StatusOr<grpc::ByteBuffer>(
      const grpc::ByteBuffer& request, CallRecord* call)>;

  // The reactor lives until OnDone.
  static UnaryCall* Start(const CallParts* parts,
                          grpc::CallbackServerContext* context,
                          const char* method, Budget budget,
                          const grpc::ByteBuffer& request,
                          grpc::ByteBuffer* response, Handle handle);

  void OnCancel() override;
  void OnDone() override;
  void Tick(absl::Time now) override;
  void Abort(const absl::Status& reason) override { End(reason); }

 private:
  UnaryCall(const CallParts* parts, grpc::CallbackServerContext* context,
            const char* method, grpc::ByteBuffer* response)
      : parts_(parts),
        context_(context),
        response_(response),
        call_(parts, context, method) {}

  absl::Status Begin(Budget budget, const grpc::ByteBuffer& request,
                     Handle handle);
  // Makes the answer. Returns what sends it.
  HostWork::Then Run(const absl::Status& may, const grpc::ByteBuffer& request,
                     const Handle& handle) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status TakeRoom(const grpc::ByteBuffer& answer);
  // Ends a call that waits for its turn at once, another one when its answer is
  // made. Returns false if the call had ended before.
  bool End(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_);

  const CallParts* const parts_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  std::shared_ptr<UnaryCall> self_;
  absl::Time deadline_ = absl::InfiniteFuture();  // constant once registered
  // Used by Begin, then by Run, then by whoever sets finished_.
  CallRecord call_;

  Mutex mutex_;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  ByteLease room_;  // of the answer, until it is sent
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

// Lets `handle(CallRecord*, const Request&, Response*)` fill the response.
template <typename Request, typename Response, typename Function>
grpc::ServerUnaryReactor* Answer(const CallParts& parts,
                                 grpc::CallbackServerContext* context,
                                 const char* method, Budget budget,
                                 const grpc::ByteBuffer* bytes,
                                 grpc::ByteBuffer* response, Function handle) {
  return UnaryCall::Start(
      &parts, context, method, budget, *bytes, response,
      [handle = std::move(handle)](
          const grpc::ByteBuffer& request,
          CallRecord* call) -> absl::StatusOr<grpc::ByteBuffer> {
        Request parsed;
        QK_RETURN_IF_ERROR(ParseRaw(request, &parsed));
        Response answer;
        QK_RETURN_IF_ERROR(handle(call, parsed, &answer));
        return ToByteBuffer(answer);
      });
}

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_UNARY_CALL_H_
