// The scheduler's clock. It is an interface, so that a simulation can use its
// own.
#ifndef QKSCOPE_SERVER_SCHEDULE_CLOCK_H_
#define QKSCOPE_SERVER_SCHEDULE_CLOCK_H_

#include <chrono>

#include "absl/time/time.h"
#include "engine/base/monotonic.h"

namespace qk {

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic, as MonotonicNow: for deadlines and budget windows.
  virtual absl::Time Now() const = 0;
  // Monotonic, for durations: seconds since some fixed moment.
  virtual double Seconds() const = 0;
};

class SystemClock : public Clock {
 public:
  absl::Time Now() const override { return MonotonicNow(); }
  double Seconds() const override {
    return std::chrono::duration<double>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_CLOCK_H_
