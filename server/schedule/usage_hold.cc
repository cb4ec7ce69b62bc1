#include "server/schedule/usage_hold.h"

#include <algorithm>
#include <utility>

namespace qk {

Usage HeldUsage::sum() const {
  MutexLock lock(&mutex_);
  return sum_;
}

void HeldUsage::Change(double device_seconds, int64_t bytes) {
  MutexLock lock(&mutex_);
  // Rounding must not leave a rest.
  sum_.device_seconds = std::max(0.0, sum_.device_seconds + device_seconds);
  sum_.bytes += bytes;
}

void UsageHold::Open(std::shared_ptr<HeldUsage> user, const Usage& expected) {
  MutexLock lock(&mutex_);
  user_ = std::move(user);
  left_ = expected;
  user_->Change(left_.device_seconds, left_.bytes);
}

void UsageHold::Use(const Usage& used) {
  MutexLock lock(&mutex_);
  if (user_ == nullptr) return;
  const Usage part = {std::min(used.device_seconds, left_.device_seconds),
                      std::min(used.bytes, left_.bytes)};
  left_.device_seconds -= part.device_seconds;
  left_.bytes -= part.bytes;
  user_->Change(-part.device_seconds, -part.bytes);
}

void UsageHold::UseUp() {
  MutexLock lock(&mutex_);
  if (user_ == nullptr) return;
  user_->Change(-left_.device_seconds, -left_.bytes);
  user_ = nullptr;
}

}  // namespace qk
