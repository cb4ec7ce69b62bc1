// What a user has taken of late: device time and streamed bytes in a sliding
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

  // Used in the window that ends now. Kept in steps of a sixteenth of the
  // window, so up to that much older use is counted, too: never too little.
  Usage Sum(absl::Time now, const UserBudget& budget);
  // When `more` will fit into the budget again: `now` if it does,
  // InfiniteFuture if it never can. A request that is not measured yet has
  // `more` zero and needs only some budget left.
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
