#include "server/calls/event_stream.h"

#include "server/common/delay_point.h"
#include "server/common/guarded.h"

namespace qk {

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
