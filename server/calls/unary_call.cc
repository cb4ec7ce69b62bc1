#include "server/calls/unary_call.h"

#include "server/common/delay_point.h"
#include "server/common/guarded.h"

namespace qk {

UnaryCall* UnaryCall::Start(const CallParts* parts,
                            grpc::CallbackServerContext* context,
                            const char* method, Budget budget,
                            const grpc::ByteBuffer& request,
                            grpc::ByteBuffer* response, Handle handle) {
  auto call = std::shared_ptr<UnaryCall>(
      new UnaryCall(parts, context, method, response));
  call->self_ = call;
  const absl::Status status = Guarded(
      method, [&] { return call->Begin(budget, request, std::move(handle)); });
  if (!status.ok()) call->End(status);
  return call.get();
}

absl::Status UnaryCall::Begin(Budget budget, const grpc::ByteBuffer& request,
                              Handle handle) {
  QK_RETURN_IF_ERROR(call_.Open());
  deadline_ = call_.deadline();
  parts_->calls->Register(weak_from_this());
  return PostWork(
      *parts_, call_.user(), request, budget,
      [self = shared_from_this(), handle = std::move(handle), request](
          const absl::Status& may) { return self->Run(may, request, handle); });
}

HostWork::Then UnaryCall::Run(const absl::Status& may,
                              const grpc::ByteBuffer& request,
                              const Handle& handle) {
  {
    MutexLock lock(&mutex_);
    if (finished_) return nullptr;
    running_ = true;
  }
  absl::StatusOr<grpc::ByteBuffer> answer = grpc::ByteBuffer();
  answer = may.ok() ? GuardedValue("handler",
                                   [&] { return handle(request, &call_); })
                    : may;
  if (answer.ok()) {
    const absl::Status room = TakeRoom(*answer);
    if (!room.ok()) answer = room;
  }
  return [self = shared_from_this(), answer = std::move(answer)]() mutable {
    absl::Status end = answer.status();
    {
      MutexLock lock(&self->mutex_);
      self->finished_ = true;
      if (self->end_.has_value()) end = *self->end_;
    }
    if (end.ok()) *self->response_ = *std::move(answer);
    DelayPoint("finish");
    self->Finish(self->call_.Finish(end));
  };
}

// The client may never read its answer.
absl::Status UnaryCall::TakeRoom(const grpc::ByteBuffer& answer) {
  QK_ASSIGN_OR_RETURN(room_, TakeBytes(parts_->buffers, *call_.user(),
                                       static_cast<int64_t>(answer.Length()),
                                       Refusal::kStreamBuffers));
  return absl::OkStatus();
}

bool UnaryCall::End(const absl::Status& reason) {
  {
    MutexLock lock(&mutex_);
    if (finished_ || end_.has_value()) return false;
    end_ = reason;
    if (running_) return true;
    finished_ = true;
  }
  DelayPoint("finish");
  Finish(call_.Finish(reason));
  return true;
}

void UnaryCall::Tick(absl::Time now) {
  if (now > deadline_) End(absl::DeadlineExceededError("deadline exceeded"));
}

void UnaryCall::OnCancel() {
  DelayPoint("cancel");
  End(CancelledReason(*context_));
}

void UnaryCall::OnDone() {
  const std::shared_ptr<UnaryCall> last = std::move(self_);
}

}  // namespace qk
