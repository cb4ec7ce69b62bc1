// What a user's budget refuses when a request is submitted.
#ifndef QKSCOPE_SERVER_SCHEDULE_ADMISSION_H_
#define QKSCOPE_SERVER_SCHEDULE_ADMISSION_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/schedule/fair_share.h"

namespace qk {

// RESOURCE_EXHAUSTED if the user has too many requests, or if
// `device_seconds` more do not fit into the budget; carries when to retry.
absl::Status CheckBudget(Account* account, double device_seconds,
                         absl::Time now);

// When a budget that refused a request will have room for it;
// InfiniteDuration: never. nullopt: no budget refused it.
std::optional<absl::Duration> BudgetRetryDelay(const absl::Status& refusal);

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_ADMISSION_H_
