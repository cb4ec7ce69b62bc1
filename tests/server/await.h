// Waits for a condition to come true.
#ifndef QKSCOPE_TESTS_SERVER_AWAIT_H_
#define QKSCOPE_TESTS_SERVER_AWAIT_H_

#include <functional>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace qk::testing {

// Returns false if the condition did not come true in time.
inline bool Await(const std::function<bool()>& condition,
                  absl::Duration longest) {
  const absl::Time end = absl::Now() + longest;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_AWAIT_H_
