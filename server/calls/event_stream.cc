#include "server/calls/event_stream.h"

#include "server/common/delay_point.h"

namespace qk {

bool EventStream::End(const absl::Status& reason) {
  MutexLock lock(&mutex_);
  if (end_.has_value()) return false;
  end_ = reason;
  return true;
}

void EventStream::Pump() {
  std::optional<grpc::Status> finish;
  {
    MutexLock lock(&mutex_);
    if (watch_.writing() || finished_) return;
    if (!end_.has_value() && NextMessage()) {
      watch_.Begin();
    } else if (end_.has_value()) {
      finished_ = true;
      finish = FinishRecord();
    } else {
      return;
    }
  }
  if (finish.has_value()) {
    DelayPoint("finish");
    Finish(*finish);
  } else {
    DelayPoint("write");
    PrepareNext();
    StartWrite(&message_);
  }
}

}  // namespace qk
