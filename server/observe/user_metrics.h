// What each user does to the server. The 100 busiest users have series of their
// own, the rest share those of "other".
//
// Busy is who has used much of the device lately; older use counts less (it
// halves in ten minutes). A user who comes while there is room gets series at
// once. After that, a user takes the series of another one only by being twice
// as busy, so that series do not come and go.
//
// Every increment is shown in exactly one series: that of the user who had it
// at the last scrape and has it still, else in "other". So each series only
// grows, and their sum is the truth. A user who gets series back goes on where
// they stopped.
#ifndef QKSCOPE_SERVER_OBSERVE_USER_METRICS_H_
#define QKSCOPE_SERVER_OBSERVE_USER_METRICS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "prometheus/metric_family.h"
#include "server/schedule/listing.h"

namespace qk {

// Thread-safe.
class UserMetrics {
 public:
  // Without "other".
  static constexpr int kMostUsers = 100;

  void CountCall(absl::string_view alias) ABSL_LOCKS_EXCLUDED(calls_mutex_);

  // `users`: all that the scheduler knows, now. `now`: of MonotonicNow. Shows
  // what was counted until now, and decides who has series from now on.
  std::vector<prometheus::MetricFamily> Collect(
      const std::vector<UserLoad>& users, absl::Time now)
      ABSL_LOCKS_EXCLUDED(mutex_, calls_mutex_);

 private:
  struct Totals {
    double calls = 0;
    double device_seconds = 0;
    double bytes = 0;

    void Add(const Totals& more);
  };
  struct User {
    Totals seen;        // at the last scrape
    Totals more;        // since then
    Totals shown;       // in the user's own series
    double recent = 0;  // device seconds, older ones counting less
    bool has_series = false;
    bool is_new = false;  // has got the series just now, from another user
    const UserLoad* load = nullptr;  // during Collect; nullptr: none
  };

  // Updates `seen`, `more` and `load` of all users, and adds new ones.
  void Read(const std::vector<UserLoad>& loads)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) ABSL_LOCKS_EXCLUDED(calls_mutex_);
  User* Find(const std::string& alias) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Age(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives series of idle users to users who are much busier.
  void Rank() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<prometheus::MetricFamily> Show()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Calls use only this one.
  Mutex calls_mutex_ ABSL_ACQUIRED_AFTER(mutex_);
  absl::flat_hash_map<std::string, int64_t> calls_
      ABSL_GUARDED_BY(calls_mutex_);

  Mutex mutex_;
  std::map<std::string, User> users_ ABSL_GUARDED_BY(mutex_);  // by alias
  int with_series_ ABSL_GUARDED_BY(mutex_) = 0;
  Totals other_ ABSL_GUARDED_BY(mutex_);
  absl::Time aged_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_USER_METRICS_H_
