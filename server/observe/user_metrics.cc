#include "server/observe/user_metrics.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "server/observe/families.h"

namespace qk {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr absl::Duration kHalfLife = absl::Minutes(10);
// How much busier a user must be to take another one's series.
constexpr double kMuchBusier = 2;

// The families, in the order of the samples below.
struct Families {
  MetricFamily calls = EmptyFamily(
      "qkscope_user_requests_total",
      "Calls of the user that ended, of every method and code. Calls without "
      "valid credentials are nobody's. The 100 busiest users have series of "
      "their own; what the others do counts under \"other\".",
      MetricType::Counter);
  MetricFamily device = EmptyFamily(
      "qkscope_user_device_seconds_total",
      "Seconds of the device that the user's requests have used: their shares "
      "of passes, comparisons and sampling, without the host's work for calls.",
      MetricType::Counter);
  MetricFamily bytes = EmptyFamily(
      "qkscope_user_streamed_bytes_total",
      "Bytes of results that were sent to the user. The sum over users equals "
      "qkscope_streamed_bytes_total.",
      MetricType::Counter);
  MetricFamily memory = EmptyFamily(
      "qkscope_user_memory_bytes",
      "Memory that the user's running requests hold, in bytes: pages of the KV "
      "cache, activations and buffers, as estimated before each ran.",
      MetricType::Gauge);
  MetricFamily in_flight = EmptyFamily(
      "qkscope_user_in_flight_requests",
      "Requests of the user that wait, run, or whose results are being read.",
      MetricType::Gauge);
  MetricFamily budget = EmptyFamily(
      "qkscope_user_budget_used_ratio",
      "Part of the user's budget of device time or of bytes, whichever is "
      "larger, that was used in the budget's window: 1 when it is used up. "
      "Absent for users without such a budget; for \"other\" the largest of "
      "theirs.",
      MetricType::Gauge);
};

// The gauges of one label.
struct Gauges {
  double memory_bytes = 0;
  double in_flight = 0;
  std::optional<double> budget_used;

  void Add(const UserLoad& load) {
    memory_bytes += static_cast<double>(load.memory_bytes);
    in_flight += load.in_flight;
    if (!load.budget_used.has_value()) return;
    budget_used = std::max(budget_used.value_or(0), *load.budget_used);
  }
};

}  // namespace

void UserMetrics::Totals::Add(const Totals& more) {
  calls += more.calls;
  device_seconds += more.device_seconds;
  bytes += more.bytes;
}

void UserMetrics::CountCall(absl::string_view alias) {
  MutexLock lock(&calls_mutex_);
  ++calls_[alias];
}

std::vector<MetricFamily> UserMetrics::Collect(
    const std::vector<UserLoad>& users, absl::Time now) {
  MutexLock lock(&mutex_);
  Read(users);
  Age(now);
  Rank();
  return Show();
}

UserMetrics::User* UserMetrics::Find(const std::string& alias) {
  const auto [it, inserted] = users_.try_emplace(alias);
  // A user who happens to have this name cannot be told from the others.
  if (inserted && alias != kOther && with_series_ < kMostUsers) {
    it->second.has_series = true;
    ++with_series_;
  }
  return &it->second;
}

void UserMetrics::Read(const std::vector<UserLoad>& loads) {
  const auto since = [](double total, double* seen) {
    return total - std::exchange(*seen, total);
  };
  for (auto& [alias, user] : users_) user.load = nullptr;
  for (const UserLoad& load : loads) {
    User* user = Find(load.alias);
    user->load = &load;
    user->more.device_seconds =
        since(load.device_seconds, &user->seen.device_seconds);
    user->more.bytes =
        since(static_cast<double>(load.bytes), &user->seen.bytes);
  }
  MutexLock lock(&calls_mutex_);
  for (const auto& [alias, calls] : calls_) {
    User* user = Find(alias);
    user->more.calls = since(static_cast<double>(calls), &user->seen.calls);
  }
}

void UserMetrics::Age(absl::Time now) {
  const absl::Duration since = now - std::exchange(aged_, now);
  const double left = std::exp2(-absl::FDivDuration(since, kHalfLife));
  for (auto& [alias, user] : users_) {
    user.recent = user.recent * left + user.more.device_seconds;
  }
}

void UserMetrics::Rank() {
  std::vector<User*> inside, outside;
  for (auto& [alias, user] : users_) {
    user.is_new = false;
    if (alias == kOther) continue;
    (user.has_series ? inside : outside).push_back(&user);
  }
  if (outside.empty()) return;
  const auto less = [](const User* a, const User* b) {
    return a->recent < b->recent;
  };
  std::stable_sort(inside.begin(), inside.end(), less);
  std::stable_sort(outside.rbegin(), outside.rend(), less);
  for (size_t i = 0; i < std::min(inside.size(), outside.size()); ++i) {
    if (outside[i]->recent <= kMuchBusier * inside[i]->recent) break;
    inside[i]->has_series = false;
    outside[i]->has_series = true;
    outside[i]->is_new = true;
  }
}

std::vector<MetricFamily> UserMetrics::Show() {
  Families families;
  const auto add = [&families](const std::string& alias, const Totals& totals,
                               const Gauges& gauges) {
    const std::vector<Label> labels = {{"user", alias}};
    AddSample(labels, totals.calls, &families.calls);
    AddSample(labels, totals.device_seconds, &families.device);
    AddSample(labels, totals.bytes, &families.bytes);
    AddSample(labels, gauges.memory_bytes, &families.memory);
    AddSample(labels, gauges.in_flight, &families.in_flight);
    if (gauges.budget_used.has_value()) {
      AddSample(labels, *gauges.budget_used, &families.budget);
    }
  };
  Gauges of_others;
  for (auto& [alias, user] : users_) {
    const Totals more = std::exchange(user.more, Totals());
    (user.has_series && !user.is_new ? user.shown : other_).Add(more);
    Gauges gauges;
    Gauges& used = user.has_series ? gauges : of_others;
    if (user.load != nullptr) used.Add(*user.load);
    if (user.has_series) add(alias, user.shown, gauges);
  }
  add(kOther, other_, of_others);
  return {std::move(families.calls),     std::move(families.device),
          std::move(families.bytes),     std::move(families.memory),
          std::move(families.in_flight), std::move(families.budget)};
}

}  // namespace qk
