// Checks a submitted request against its user's budget.
#ifndef QKSCOPE_SERVER_SCHEDULE_ADMISSION_H_
#define QKSCOPE_SERVER_SCHEDULE_ADMISSION_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/schedule/fair_share.h"

namespace qk {

// Fails with RESOURCE_EXHAUSTED if the user has too many requests, or if
// `device_seconds` more exceed the budget. The error says when to retry.
absl::Status CheckBudget(Account* account, double device_seconds,
                         absl::Time now);

// How long after the refusal the budget will have room for the request.
// InfiniteDuration: never. nullopt: the refusal was not by a budget.
std::optional<absl::Duration> BudgetRetryDelay(const absl::Status& refusal);

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_ADMISSION_H_
