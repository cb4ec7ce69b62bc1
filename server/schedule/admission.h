// Checks what a user's budget allows, and whose request gives way when the
// queue is full.
#ifndef QKSCOPE_SERVER_SCHEDULE_ADMISSION_H_
#define QKSCOPE_SERVER_SCHEDULE_ADMISSION_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/schedule/fair_share.h"

namespace qk {

// What a request is expected to use. The device time is an estimate; the bytes
// of the answer are in [least_bytes, most_bytes].
struct ExpectedUsage {
  double device_seconds = 0;
  int64_t least_bytes = 0;
  int64_t most_bytes = 0;
};

// Why a request does not run, although it could at another time.
enum class RefusedBy { kBudget, kQueue };
struct ScheduleRefusal {
  RefusedBy by = RefusedBy::kQueue;
  // How long after the refusal it may succeed. InfiniteDuration: never.
  absl::Duration retry;
};

// RESOURCE_EXHAUSTED, with what ScheduleRefusalOf returns.
absl::Status RefusedBySchedule(const std::string& message,
                               const ScheduleRefusal& refusal);
// nullopt: the status is another one.
std::optional<ScheduleRefusal> ScheduleRefusalOf(const absl::Status& status);

// The part of the user's budget that `expected` takes, which is never more than
// the whole budget: an estimate does not say that a request can never run.
Usage PartOfBudget(const UserBudget& budget, const ExpectedUsage& expected);

// Fails with RefusedBySchedule if the user has too many requests in flight.
absl::Status CheckPlaces(const Account& account);
// Fails with RefusedBySchedule if `expected` exceeds what the budget has left
// after what was used and what requests in flight will use.
absl::Status CheckBudget(Account* account, const ExpectedUsage& expected,
                         absl::Time now);
// The refusal of a request whose budget is used up until `fits`.
absl::Status BudgetUsedUp(Account* account, absl::Time now, absl::Time fits);

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_ADMISSION_H_
