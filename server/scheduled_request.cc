#include "server/scheduled_request.h"

#include "absl/time/clock.h"
#include "engine/check.h"

namespace qk {

void ScheduledRequest::Cancel(const absl::Status& reason) {
  QK_CHECK(!reason.ok());
  std::shared_ptr<CancelListener> listener;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!cancelled_.ok()) return;
    cancelled_ = reason;
    cancelled_at_ = absl::Now();
    for (Run* run : runs_) run->Cancel(reason);
    listener = listener_;
  }
  if (listener != nullptr) listener->OnCancel(this);
}

absl::Status ScheduledRequest::cancelled() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return cancelled_;
}

absl::Time ScheduledRequest::cancelled_at() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return cancelled_at_;
}

absl::Time ScheduledRequest::started() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return started_;
}

}  // namespace qk
