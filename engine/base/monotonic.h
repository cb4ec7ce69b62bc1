// The time that durations and time limits are measured in. It never jumps: a
// wall clock that is set forward or back changes nothing.
#ifndef QKSCOPE_ENGINE_BASE_MONOTONIC_H_
#define QKSCOPE_ENGINE_BASE_MONOTONIC_H_

#include <chrono>

#include "absl/time/time.h"

namespace qk {

// Time since some fixed moment, as an absl::Time close to 1970: comparing it
// with a time of the wall clock (absl::Now) is an error that shows at once.
inline absl::Time MonotonicNow() {
  return absl::UnixEpoch() +
         absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

// The other way: `time` must be finite.
inline std::chrono::steady_clock::time_point ToSteadyTime(absl::Time time) {
  return std::chrono::steady_clock::time_point(
      absl::ToChronoNanoseconds(time - absl::UnixEpoch()));
}

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_MONOTONIC_H_
