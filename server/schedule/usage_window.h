// What a user has used lately: device time and streamed bytes in a sliding
// window, and whether that is within the user's budget.
#ifndef QKSCOPE_SERVER_SCHEDULE_USAGE_WINDOW_H_
#define QKSCOPE_SERVER_SCHEDULE_USAGE_WINDOW_H_

#include <cstdint>
#include <deque>

#include "absl/time/time.h"
#include "server/common/user.h"

namespace qk {

struct Usage {
  double device_seconds = 0;
  int64_t bytes = 0;
};

// Not thread-safe.
class UsageWindow {
 public:
  void Add(absl::Time now, const UserBudget& budget, const Usage& used);

  // What was used in the window that ends now. Use is recorded in steps of a
  // sixteenth of the window, so the sum may include use up to that much older,
  // but never misses any.
  Usage Sum(absl::Time now, const UserBudget& budget);
  // When `more` will fit into the budget: `now` if it does already,
  // InfiniteFuture if it never will. If the cost of a request is not known,
  // `more` is zero and any budget left is enough.
  absl::Time WhenFits(absl::Time now, const UserBudget& budget,
                      const Usage& more);

 private:
  struct Step {
    absl::Time begin;
    Usage used;
  };
  void Expire(absl::Time now, absl::Duration window);

  std::deque<Step> steps_;  // by time
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_USAGE_WINDOW_H_
