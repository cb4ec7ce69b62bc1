#include "server/schedule/scheduled_request.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/monotonic.h"

namespace qk {

ScheduledRequest::~ScheduledRequest() {
  if (listener_ != nullptr) listener_->OnGone(this);
}

void ScheduledRequest::SetOnCancel(
    std::function<void(const absl::Status&)> on_cancel) {
  {
    MutexLock lock(&mutex_);
    if (cancelled_.ok()) {
      on_cancel_ = std::move(on_cancel);
      return;
    }
  }
  on_cancel(cancelled());
}

void ScheduledRequest::Cancel(const absl::Status& reason) {
  QK_CHECK(!reason.ok());
  std::shared_ptr<RequestListener> listener;
  std::function<void(const absl::Status&)> on_cancel;
  {
    MutexLock lock(&mutex_);
    if (!cancelled_.ok()) return;
    cancelled_ = reason;
    cancelled_at_ = MonotonicNow();
    for (Run* run : runs_) run->Cancel(reason);
    listener = listener_;
    on_cancel.swap(on_cancel_);
  }
  if (listener != nullptr) listener->OnCancel(this);
  if (on_cancel) on_cancel(reason);
}

absl::Status ScheduledRequest::cancelled() const {
  MutexLock lock(&mutex_);
  return cancelled_;
}

absl::Time ScheduledRequest::cancelled_at() const {
  MutexLock lock(&mutex_);
  return cancelled_at_;
}

absl::Time ScheduledRequest::started() const {
  MutexLock lock(&mutex_);
  return started_;
}

absl::Status ScheduledRequest::AddRuns(
    const std::vector<ScheduledRun>& runs,
    const std::shared_ptr<RequestListener>& listener) {
  MutexLock lock(&mutex_);
  if (!cancelled_.ok()) return cancelled_;
  listener_ = listener;
  for (const ScheduledRun& run : runs) runs_.push_back(run.run.get());
  return absl::OkStatus();
}

void ScheduledRequest::RemoveRun(const Run* run) {
  MutexLock lock(&mutex_);
  if (std::erase(runs_, run) > 0) ended_ += run->times();
}

RunTimes ScheduledRequest::times() const {
  MutexLock lock(&mutex_);
  RunTimes times = ended_;
  for (const Run* run : runs_) times += run->times();
  return times;
}

void ScheduledRequest::MarkStarted(absl::Time now) {
  MutexLock lock(&mutex_);
  started_ = std::min(started_, now);
}

}  // namespace qk
