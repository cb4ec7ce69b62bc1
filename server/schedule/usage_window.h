// A user's recent usage: device time and streamed bytes in a sliding window,
// compared with the user's budget.
#ifndef QKSCOPE_SERVER_SCHEDULE_USAGE_WINDOW_H_
#define QKSCOPE_SERVER_SCHEDULE_USAGE_WINDOW_H_

#include <cstdint>
#include <deque>
#include <optional>

#include "absl/time/time.h"
#include "server/common/user.h"

namespace qk {

struct Usage {
  double device_seconds = 0;  // the host's included
  int64_t bytes = 0;
  double host_seconds = 0;  // the host's part of device_seconds
};

// Not thread-safe.
class UsageWindow {
 public:
  void Add(absl::Time now, const UserBudget& budget, const Usage& used);

  // The usage in the window that ends now. Usage is recorded in buckets of a
  // sixteenth of the window, so the sum may include usage that is older by up
  // to that much, but never misses any.
  Usage Sum(absl::Time now, const UserBudget& budget);
  // The largest part of a limit of the budget that Sum has used. nullopt: the
  // budget has none.
  std::optional<double> UsedPart(absl::Time now, const UserBudget& budget);
  // When `more` will fit into the budget: `now` if it does already,
  // InfiniteFuture if it never will. If the cost of a request is not known,
  // `more` is zero and any budget left is enough.
  absl::Time WhenFits(absl::Time now, const UserBudget& budget,
                      const Usage& more);

 private:
  struct Bucket {
    absl::Time begin;
    Usage used;
  };
  void Expire(absl::Time now, absl::Duration window);

  std::deque<Bucket> buckets_;  // by time
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_USAGE_WINDOW_H_
