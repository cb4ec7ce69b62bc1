#include "server/schedule/admission.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace qk {
namespace {

constexpr char kUrl[] = "qkscope/schedule_refusal";
constexpr absl::string_view kBudget = "budget ";
constexpr absl::string_view kQueue = "queue ";
// When requests in flight may have ended.
constexpr absl::Duration kSoon = absl::Seconds(1);

// "client budget: 120 of 300 device ms used and 60 held by requests in flight,
// 5 of 1000 bytes used in 3600 s".
std::string StateOf(const UserBudget& budget, const Usage& used,
                    const Usage& held) {
  std::vector<std::string> parts;
  if (budget.device_ms_per_window > 0) {
    parts.push_back(absl::StrFormat("%.0f of %d device ms used",
                                    used.device_seconds * 1e3,
                                    budget.device_ms_per_window));
    if (held.device_seconds > 0) {
      parts.back() += absl::StrFormat(" and %.0f held by requests in flight",
                                      held.device_seconds * 1e3);
    }
  }
  if (budget.bytes_per_window > 0) {
    parts.push_back(absl::StrFormat("%d of %d bytes used", used.bytes,
                                    budget.bytes_per_window));
    if (held.bytes > 0) {
      parts.back() +=
          absl::StrFormat(" and %d held by requests in flight", held.bytes);
    }
  }
  return absl::StrFormat("client budget: %s in %d s",
                         absl::StrJoin(parts, ", "), budget.window_s);
}

absl::Status OverBudget(const std::string& message, absl::Duration retry) {
  return RefusedBySchedule(message, {RefusedBy::kBudget, retry});
}

std::string RetryText(absl::Duration retry) {
  return absl::StrFormat("; retry in %.0f s", absl::ToDoubleSeconds(retry));
}

}  // namespace

absl::Status RefusedBySchedule(const std::string& message,
                               const ScheduleRefusal& refusal) {
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kUrl,
                    absl::Cord(absl::StrCat(
                        refusal.by == RefusedBy::kBudget ? kBudget : kQueue,
                        absl::ToDoubleSeconds(refusal.retry))));
  return status;
}

std::optional<ScheduleRefusal> ScheduleRefusalOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kUrl);
  if (!payload.has_value()) return std::nullopt;
  const std::string text(*payload);
  absl::string_view rest = text;
  ScheduleRefusal out;
  out.by = absl::ConsumePrefix(&rest, kBudget) ? RefusedBy::kBudget
                                               : RefusedBy::kQueue;
  absl::ConsumePrefix(&rest, kQueue);
  double seconds = 0;
  if (!absl::SimpleAtod(rest, &seconds)) return std::nullopt;
  out.retry = absl::Seconds(seconds);
  return out;
}

Usage PartOfBudget(const UserBudget& budget, const ExpectedUsage& expected) {
  Usage part = {expected.device_seconds, expected.most_bytes};
  if (budget.device_ms_per_window > 0) {
    part.device_seconds =
        std::min(part.device_seconds,
                 static_cast<double>(budget.device_ms_per_window) / 1e3);
  }
  if (budget.bytes_per_window > 0) {
    part.bytes = std::max(expected.least_bytes,
                          std::min(part.bytes, budget.bytes_per_window));
  }
  return part;
}

absl::Status CheckPlaces(const Account& account) {
  const UserBudget& budget = account.budget;
  if (budget.max_in_flight > 0 && account.in_flight >= budget.max_in_flight) {
    return OverBudget(absl::StrFormat("client quota: %d requests in flight",
                                      budget.max_in_flight),
                      kSoon);
  }
  if (budget.max_queued > 0 && account.queued >= budget.max_queued) {
    return OverBudget(
        absl::StrFormat("client quota: %d requests queued", budget.max_queued),
        kSoon);
  }
  return absl::OkStatus();
}

absl::Status CheckBudget(Account* account, const ExpectedUsage& expected,
                         absl::Time now) {
  const UserBudget& budget = account->budget;
  if (budget.device_ms_per_window <= 0 && budget.bytes_per_window <= 0) {
    return absl::OkStatus();
  }
  const Usage more = PartOfBudget(budget, expected);
  const Usage held = account->held->sum();
  const Usage with_held = {more.device_seconds + held.device_seconds,
                           more.bytes + held.bytes};
  if (account->usage.WhenFits(now, budget, with_held) <= now) {
    return absl::OkStatus();
  }
  const std::string state =
      StateOf(budget, account->usage.Sum(now, budget), held);
  const absl::Time fits = account->usage.WhenFits(now, budget, more);
  if (fits == absl::InfiniteFuture()) {
    return OverBudget(
        absl::StrFormat("%s; the answer needs at least %d bytes; reduce "
                        "layers/heads/positions",
                        state, expected.least_bytes),
        absl::InfiniteDuration());
  }
  const absl::Duration retry = std::max(fits - now, kSoon);
  return OverBudget(absl::StrCat(state, RetryText(retry)), retry);
}

absl::Status BudgetUsedUp(Account* account, absl::Time now, absl::Time fits) {
  const absl::Duration retry = std::max(fits - now, kSoon);
  return OverBudget(
      absl::StrCat(StateOf(account->budget,
                           account->usage.Sum(now, account->budget), Usage()),
                   RetryText(retry)),
      retry);
}

}  // namespace qk
