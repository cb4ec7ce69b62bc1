#include "server/schedule/usage_window.h"

#include <algorithm>

namespace qk {
namespace {

constexpr int kSteps = 16;

absl::Duration WindowOf(const UserBudget& budget) {
  return absl::Seconds(std::max<int64_t>(1, budget.window_s));
}

// Nothing more may start once the budget is used up, and `more` must fit.
bool Fits(const UserBudget& budget, const Usage& used, const Usage& more) {
  const double device_limit = budget.device_ms_per_window / 1e3;
  if (budget.device_ms_per_window > 0 &&
      (used.device_seconds >= device_limit ||
       used.device_seconds + more.device_seconds > device_limit)) {
    return false;
  }
  return budget.bytes_per_window <= 0 ||
         (used.bytes < budget.bytes_per_window &&
          more.bytes <= budget.bytes_per_window - used.bytes);
}

}  // namespace

void UsageWindow::Expire(absl::Time now, absl::Duration window) {
  while (!steps_.empty() &&
         steps_.front().begin + window + window / kSteps <= now) {
    steps_.pop_front();
  }
}

void UsageWindow::Add(absl::Time now, const UserBudget& budget,
                      const Usage& used) {
  const absl::Duration window = WindowOf(budget);
  Expire(now, window);
  if (steps_.empty() || now - steps_.back().begin >= window / kSteps) {
    steps_.push_back({now, {}});
  }
  steps_.back().used.device_seconds += used.device_seconds;
  steps_.back().used.bytes += used.bytes;
}

Usage UsageWindow::Sum(absl::Time now, const UserBudget& budget) {
  Expire(now, WindowOf(budget));
  Usage sum;
  for (const Step& step : steps_) {
    sum.device_seconds += step.used.device_seconds;
    sum.bytes += step.used.bytes;
  }
  return sum;
}

absl::Time UsageWindow::WhenFits(absl::Time now, const UserBudget& budget,
                                 const Usage& more) {
  if (!Fits(budget, Usage(), more)) return absl::InfiniteFuture();
  const absl::Duration window = WindowOf(budget);
  Usage left = Sum(now, budget);
  if (Fits(budget, left, more)) return now;
  for (const Step& step : steps_) {
    left.device_seconds -= step.used.device_seconds;
    left.bytes -= step.used.bytes;
    if (Fits(budget, left, more)) {
      return step.begin + window + window / kSteps;
    }
  }
  return steps_.back().begin + window + window / kSteps;
}

}  // namespace qk
