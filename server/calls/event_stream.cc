#include "server/calls/event_stream.h"

#include "engine/base/check.h"
#include "server/common/delay_point.h"
#include "server/common/guarded.h"

namespace qk {

void EventStream::Accept(const grpc::ByteBuffer& message, Budget budget,
                         Begin begin) {
  self_ = shared_from_this();
  const absl::Status status =
      Guarded("accept", [&] { return Open(message, budget, begin); });
  if (!status.ok()) Refuse(status);
}

absl::Status EventStream::Open(const grpc::ByteBuffer& message, Budget budget,
                               Begin begin) {
  std::shared_ptr<const User> user;
  {
    MutexLock lock(&mutex_);
    QK_RETURN_IF_ERROR(call_.Open());
    // A run has the same deadline, so it ends with the stream.
    deadline_ = call_.deadline();
    user = call_.user();
  }
  call_parts_->calls->Register(weak_from_this());
  return PostBegin(
      *call_parts_, std::move(user), message, budget,
      [begin = std::move(begin), message] { return begin(message); },
      [self = shared_from_this()](const absl::Status& status) {
        status.ok() ? self->Pump() : self->Refuse(status);
      });
}

bool EventStream::End(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  if (end_.has_value()) return false;
  end_ = reason;
  return true;
}

void EventStream::Pump() {
  std::optional<grpc::Status> finish;
  absl::Status thrown;
  {
    MutexLock lock(&mutex_);
    if (watch_.writing() || finished_) return;
    bool more = false;
    if (!end_.has_value()) {
      thrown = Guarded("stream", [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        more = NextMessage();
      });
    }
    if (more) {
      watch_.Begin();
    } else if (end_.has_value()) {
      finished_ = true;
      finish = FinishRecord();
    } else if (thrown.ok()) {
      return;
    }
  }
  if (finish.has_value()) {
    DelayPoint("finish");
    Finish(*finish);
    return;
  }
  if (!thrown.ok()) return EndThrown(thrown, /*write=*/false);
  thrown = Guarded("write", [&] {
    DelayPoint("write");
    PrepareNext();
  });
  if (!thrown.ok()) return EndThrown(thrown, /*write=*/true);
  StartWrite(&message_);
}

}  // namespace qk
