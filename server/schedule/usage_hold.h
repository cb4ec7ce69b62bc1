// What requests in flight are expected to use of a user's budget, beyond what
// they have used already. Without it, requests that begin together would each
// find the whole budget free.
#ifndef QKSCOPE_SERVER_SCHEDULE_USAGE_HOLD_H_
#define QKSCOPE_SERVER_SCHEDULE_USAGE_HOLD_H_

#include <memory>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"
#include "server/schedule/usage_window.h"

namespace qk {

// The sum of a user's holds. Thread-safe.
class HeldUsage {
 public:
  Usage sum() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class UsageHold;
  void Change(double device_seconds, int64_t bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  mutable Mutex mutex_;
  Usage sum_ ABSL_GUARDED_BY(mutex_);
};

// One run's part, which ends with the object. Thread-safe.
class UsageHold {
 public:
  UsageHold() = default;
  ~UsageHold() { UseUp(); }
  UsageHold(const UsageHold&) = delete;
  UsageHold& operator=(const UsageHold&) = delete;

  // Call once, before the functions below have an effect.
  void Open(std::shared_ptr<HeldUsage> user, const Usage& expected)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Call when so much of it has been charged.
  void Use(const Usage& used) ABSL_LOCKS_EXCLUDED(mutex_);
  // Call when no more will be used.
  void UseUp() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  Mutex mutex_;
  std::shared_ptr<HeldUsage> user_ ABSL_GUARDED_BY(mutex_);
  Usage left_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_USAGE_HOLD_H_
