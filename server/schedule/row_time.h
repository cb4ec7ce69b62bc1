// The device time per row of a pass, as a running mean.
#ifndef QKSCOPE_SERVER_SCHEDULE_ROW_TIME_H_
#define QKSCOPE_SERVER_SCHEDULE_ROW_TIME_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace qk {

// Only the scheduler's thread may call Measure; any thread may call the rest.
class RowTime {
 public:
  // 0 before the first measurement.
  double seconds() const { return seconds_; }
  double SecondsOf(int64_t rows) const {
    return static_cast<double>(rows) * seconds_;
  }

  void Measure(int rows, double pass_seconds) {
    const double mean = seconds_;
    if (rows < kManyRows && mean != 0) return;
    const double newest = pass_seconds / std::max(1, rows);
    seconds_ = mean == 0 ? newest : (1 - kNewest) * mean + kNewest * newest;
  }

 private:
  // Passes with fewer rows mostly take the time to read the weights.
  static constexpr int kManyRows = 16;
  // Weight of the newest pass in the running mean.
  static constexpr double kNewest = 0.2;

  std::atomic<double> seconds_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_ROW_TIME_H_
