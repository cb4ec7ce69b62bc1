#include "server/schedule/usage_window.h"

#include <algorithm>

namespace qk {
namespace {

constexpr int kBuckets = 16;
constexpr double kRounding = 1e-9;  // seconds, of sums

absl::Duration WindowOf(const UserBudget& budget) {
  return absl::Seconds(std::max<int64_t>(1, budget.window_s));
}

// Returns false if the budget is used up, or if `more` exceeds the rest.
bool Fits(const UserBudget& budget, const Usage& used, const Usage& more) {
  const double device_limit = budget.device_ms_per_window / 1e3;
  if (budget.device_ms_per_window > 0 &&
      (used.device_seconds >= device_limit ||
       used.device_seconds + more.device_seconds > device_limit + kRounding)) {
    return false;
  }
  return budget.bytes_per_window <= 0 ||
         (used.bytes < budget.bytes_per_window &&
          more.bytes <= budget.bytes_per_window - used.bytes);
}

}  // namespace

void UsageWindow::Expire(absl::Time now, absl::Duration window) {
  while (!buckets_.empty() &&
         buckets_.front().begin + window + window / kBuckets <= now) {
    buckets_.pop_front();
  }
}

void UsageWindow::Add(absl::Time now, const UserBudget& budget,
                      const Usage& used) {
  const absl::Duration window = WindowOf(budget);
  Expire(now, window);
  if (buckets_.empty() || now - buckets_.back().begin >= window / kBuckets) {
    buckets_.push_back({now, {}});
  }
  buckets_.back().used.device_seconds += used.device_seconds;
  buckets_.back().used.bytes += used.bytes;
  buckets_.back().used.host_seconds += used.host_seconds;
}

Usage UsageWindow::Sum(absl::Time now, const UserBudget& budget) {
  Expire(now, WindowOf(budget));
  Usage sum;
  for (const Bucket& bucket : buckets_) {
    sum.device_seconds += bucket.used.device_seconds;
    sum.bytes += bucket.used.bytes;
    sum.host_seconds += bucket.used.host_seconds;
  }
  return sum;
}

std::optional<double> UsageWindow::UsedPart(absl::Time now,
                                            const UserBudget& budget) {
  if (budget.device_ms_per_window <= 0 && budget.bytes_per_window <= 0) {
    return std::nullopt;
  }
  const Usage used = Sum(now, budget);
  double part = 0;
  if (budget.device_ms_per_window > 0) {
    part = used.device_seconds * 1e3 /
           static_cast<double>(budget.device_ms_per_window);
  }
  if (budget.bytes_per_window > 0) {
    part = std::max(part, static_cast<double>(used.bytes) /
                              static_cast<double>(budget.bytes_per_window));
  }
  return part;
}

absl::Time UsageWindow::WhenFits(absl::Time now, const UserBudget& budget,
                                 const Usage& more) {
  if (!Fits(budget, Usage(), more)) return absl::InfiniteFuture();
  const absl::Duration window = WindowOf(budget);
  Usage left = Sum(now, budget);
  if (Fits(budget, left, more)) return now;
  for (const Bucket& bucket : buckets_) {
    left.device_seconds -= bucket.used.device_seconds;
    left.bytes -= bucket.used.bytes;
    if (Fits(budget, left, more)) {
      return bucket.begin + window + window / kBuckets;
    }
  }
  return buckets_.back().begin + window + window / kBuckets;
}

}  // namespace qk
