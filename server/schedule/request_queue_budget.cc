// RequestQueue's functions about users' budgets.
#include <memory>
#include <utility>

#include "server/schedule/admission.h"
#include "server/schedule/request_queue.h"
#include "server/schedule/request_table.h"

namespace qk {

absl::Status RequestQueue::CheckBudgetOf(
    Account* account, const std::vector<ScheduledRun>& runs) {
  ExpectedUsage expected;
  for (const ScheduledRun& run : runs) {
    expected.device_seconds += row_time_->SecondsOf(run.prefill_rows);
    if (run.answer == nullptr) continue;
    expected.least_bytes += run.least_bytes;
    expected.most_bytes += run.most_bytes;
  }
  return CheckBudget(account, expected, clock_->Now());
}

void RequestQueue::HoldUsage(const Account& account,
                             std::vector<ScheduledRun>* runs) {
  for (ScheduledRun& run : *runs) {
    const Usage part =
        PartOfBudget(account.budget, {row_time_->SecondsOf(run.prefill_rows),
                                      run.least_bytes, run.most_bytes});
    run.device->Open(account.held, {part.device_seconds, 0});
    if (run.answer != nullptr) run.answer->Open(account.held, {0, part.bytes});
  }
}

absl::StatusOr<std::unique_ptr<UsageHold>> RequestQueue::HoldBytes(
    const User& user, int64_t bytes) {
  MutexLock lock(&mutex_);
  Account* account = table_->share().AccountOf(user);
  const ExpectedUsage expected = {0, bytes, bytes};
  const absl::Status status = CheckBudget(account, expected, clock_->Now());
  if (!status.ok()) return status;
  auto hold = std::make_unique<UsageHold>();
  hold->Open(account->held, {0, bytes});
  return hold;
}

absl::Status RequestQueue::CheckBudgetLeft(const User& user) {
  MutexLock lock(&mutex_);
  Account* account = table_->share().AccountOf(user);
  const absl::Time now = clock_->Now();
  const absl::Time fits = account->usage.WhenFits(now, account->budget, {});
  return fits <= now ? absl::OkStatus() : BudgetUsedUp(account, now, fits);
}

void RequestQueue::ChargeHost(const User& user, Priority priority,
                              double seconds) {
  MutexLock lock(&mutex_);
  table_->ChargeHost(clock_->Now(), user, priority, seconds);
}

void RequestQueue::EndUsedUp(ScheduledRequest* request, absl::Time fits) {
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    status = BudgetUsedUp(table_->share().AccountOf(*request->info().user),
                          clock_->Now(), fits);
  }
  request->Cancel(status);
}

std::map<Flow*, FlowDemand> RequestQueue::Demand(
    const std::map<Flow*, double>& running, absl::Time* wake) {
  std::vector<std::pair<std::shared_ptr<ScheduledRequest>, absl::Status>> ended;
  std::map<Flow*, FlowDemand> demand;
  {
    MutexLock lock(&mutex_);
    const absl::Time now = clock_->Now();
    *wake = std::min(*wake, next_deadline_.load());
    std::map<Flow*, absl::Time> used_up;
    demand = FindDemand(running, *row_time_, now, table_.get(), wake, &used_up);
    for (const auto& [flow, fits] : used_up) {
      const auto waiting = table_->queues().find(flow);
      if (waiting == table_->queues().end()) continue;
      for (const QueuedRequest* queued : waiting->second) {
        if (queued->active > 0 || queued->request->deadline() >= fits) continue;
        ended.emplace_back(queued->request,
                           BudgetUsedUp(flow->account, now, fits));
      }
    }
  }
  for (const auto& [request, status] : ended) request->Cancel(status);
  return demand;
}

void RequestQueue::ChargeBytes(const User& user, Priority priority,
                               int64_t bytes) {
  MutexLock lock(&mutex_);
  table_->ChargeBytes(clock_->Now(), user, priority, bytes);
}

}  // namespace qk
