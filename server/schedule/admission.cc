#include "server/schedule/admission.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace qk {
namespace {

constexpr char kRetryUrl[] = "qkscope/budget_retry_seconds";

absl::Status OverBudget(const std::string& message, absl::Duration retry) {
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kRetryUrl,
                    absl::Cord(absl::StrCat(absl::ToDoubleSeconds(retry))));
  return status;
}

}  // namespace

std::optional<absl::Duration> BudgetRetryDelay(const absl::Status& refusal) {
  const auto payload = refusal.GetPayload(kRetryUrl);
  double seconds = 0;
  if (!payload.has_value() ||
      !absl::SimpleAtod(std::string(*payload), &seconds)) {
    return std::nullopt;
  }
  return absl::Seconds(seconds);
}

absl::Status CheckBudget(Account* account, double device_seconds,
                         absl::Time now) {
  const UserBudget& budget = account->budget;
  constexpr absl::Duration kSoon = absl::Seconds(1);
  if (budget.max_in_flight > 0 && account->in_flight >= budget.max_in_flight) {
    return OverBudget(absl::StrFormat("client quota: %d requests in flight",
                                      budget.max_in_flight),
                      kSoon);
  }
  if (budget.max_queued > 0 && account->queued >= budget.max_queued) {
    return OverBudget(
        absl::StrFormat("client quota: %d requests queued", budget.max_queued),
        kSoon);
  }
  const Usage more = {.device_seconds = device_seconds};
  const absl::Time fits = account->usage.WhenFits(now, budget, more);
  if (fits <= now) return absl::OkStatus();
  const Usage used = account->usage.Sum(now, budget);
  const std::string state = absl::StrFormat(
      "client budget: %.0f of %d device ms and %d of %d bytes used in %d s",
      used.device_seconds * 1e3, budget.device_ms_per_window, used.bytes,
      budget.bytes_per_window, budget.window_s);
  if (fits == absl::InfiniteFuture()) {
    return OverBudget(
        absl::StrFormat("%s; the request needs about %.0f device ms; reduce "
                        "its tokens or arms",
                        state, more.device_seconds * 1e3),
        absl::InfiniteDuration());
  }
  return OverBudget(absl::StrFormat("%s; retry in %.0f s", state,
                                    absl::ToDoubleSeconds(fits - now)),
                    fits - now);
}

}  // namespace qk
