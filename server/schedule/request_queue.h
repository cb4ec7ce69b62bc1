// The state that calls and the scheduler's thread share, under one lock:
// waiting and running requests, the fair shares, and the users' usage. Passes
// are not part of it; they belong to the scheduler's thread.
#ifndef QKSCOPE_SERVER_SCHEDULE_REQUEST_QUEUE_H_
#define QKSCOPE_SERVER_SCHEDULE_REQUEST_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "server/schedule/clock.h"
#include "server/schedule/flow_demand.h"
#include "server/schedule/listing.h"
#include "server/schedule/queued_run.h"
#include "server/schedule/row_time.h"
#include "server/schedule/scheduled_request.h"
#include "server/schedule/scheduler_observer.h"
#include "server/schedule/scheduler_options.h"

namespace qk {

struct Account;

// Scheduler describes the functions that it has, too.
class RequestQueue {
 public:
  // All but `options` must outlive the queue.
  RequestQueue(const SchedulerOptions& options, const RowTime* row_time,
               SchedulerObserver* observer, const Clock* clock);
  ~RequestQueue();

  // --- Any thread.

  absl::Status Submit(const std::shared_ptr<ScheduledRequest>& request,
                      std::vector<ScheduledRun> runs)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void ChargeBytes(const User& user, Priority priority, int64_t bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void ChargeHost(const User& user, Priority priority, double seconds)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::unique_ptr<UsageHold>> HoldBytes(const User& user,
                                                       int64_t bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckBudgetLeft(const User& user) ABSL_LOCKS_EXCLUDED(mutex_);
  void RoomFreed() ABSL_LOCKS_EXCLUDED(mutex_);
  std::function<void()> RoomSignal() const;
  SchedulerState state() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<ListedRequest> List() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<ScheduledRequest> Find(const std::string& id) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<UserState> Users() ABSL_LOCKS_EXCLUDED(mutex_);
  SchedulerLoad Load() ABSL_LOCKS_EXCLUDED(mutex_);
  void StopAdmission() ABSL_LOCKS_EXCLUDED(mutex_);
  bool WaitUntilIdle(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  void CancelAll(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes WaitForWork return false once no request is left.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  // --- The scheduler's thread only.

  // Unless `busy`, waits for a new request, a cancellation or `wake`. If the
  // device is idle, then waits briefly for requests that arrive together.
  // Returns false if the thread must end.
  bool WaitForWork(bool busy, absl::Time wake, bool device_idle)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The number of submissions so far.
  uint64_t arrivals() const { return arrivals_; }
  // Cancels requests that are past their deadline.
  void CancelOverdue() ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether requests have been cancelled since the last call.
  bool TakeCancelled() { return cancelled_ && cancelled_.exchange(false); }

  // Calls FindDemand (flow_demand.h), and lowers `*wake` to the next deadline.
  // Ends waiting requests whose budget has no room before their deadline.
  std::map<Flow*, FlowDemand> Demand(const std::map<Flow*, double>& running,
                                     absl::Time* wake)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Cancels a request whose budget is used up until `fits`.
  void EndUsedUp(ScheduledRequest* request, absl::Time fits)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The models of the next run of each request, without the runs that may not
  // reserve memory now (blocked_models.h).
  std::vector<const Model*> NextModels(
      const std::deque<QueuedRequest*>& requests) ABSL_LOCKS_EXCLUDED(mutex_);
  // Removes the request's next run from the queue if it is of `model` and may
  // reserve memory. A run with more than `max_rows` stays, and `*too_long` is
  // set. No other run of the request leaves before Admit, PutBack or Refuse.
  std::optional<QueuedRun> Take(QueuedRequest* queued, const Model* model,
                                int64_t max_rows, bool* too_long)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Call when the run has its memory.
  void Admit(const QueuedRun& run, const Model* model)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Puts a run back for which there is no memory until another one ends.
  // Returns false if it was cancelled in the meantime; then call Refuse.
  bool PutBack(QueuedRun* run, const Model* model) ABSL_LOCKS_EXCLUDED(mutex_);
  // Call when the run has ended without having been admitted.
  void Refuse(const QueuedRun& run, const Model* model)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasWaiting(const QueuedRequest* queued) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Charges requests for the device seconds that their runs have used.
  void Charge(const std::vector<std::pair<QueuedRequest*, double>>& used)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // An admitted run that has ended.
  struct EndedRun {
    QueuedRequest* queued = nullptr;
    int64_t memory_bytes = 0;  // ScheduledRun::memory_bytes
  };
  // Call when the runs' memory is free.
  void EndRuns(const std::vector<EndedRun>& runs) ABSL_LOCKS_EXCLUDED(mutex_);
  // Erases requests that have no run left.
  void EraseEmpty() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Listener;
  class Room;
  using Requests = std::vector<std::shared_ptr<ScheduledRequest>>;

  // Ends the waiting runs of a cancelled request.
  void EndWaiting(ScheduledRequest* request) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndCall(ScheduledRequest* request) ABSL_LOCKS_EXCLUDED(mutex_);

  // Submit under the lock. `*gives_way` must then be cancelled without it.
  absl::Status Add(const std::shared_ptr<ScheduledRequest>& request,
                   std::vector<ScheduledRun> runs,
                   std::shared_ptr<ScheduledRequest>* gives_way)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckBudgetOf(Account* account,
                             const std::vector<ScheduledRun>& runs)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void HoldUsage(const Account& account, std::vector<ScheduledRun>* runs)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration GatherTime() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Requests TakeEmpty() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const SchedulerOptions options_;
  const RowTime* const row_time_;
  const Clock* const clock_;
  const std::shared_ptr<Listener> listener_;
  const std::shared_ptr<Room> room_;
  // Written under mutex_, but also read without it.
  std::atomic<uint64_t> arrivals_ = 0;
  std::atomic<bool> cancelled_ = false;
  std::atomic<absl::Time> next_deadline_ = absl::InfiniteFuture();

  mutable Mutex mutex_;
  CondVar changed_;
  // Only the scheduler's thread erases requests.
  const std::unique_ptr<RequestTable> table_ ABSL_PT_GUARDED_BY(mutex_);
  uint64_t arrivals_seen_ ABSL_GUARDED_BY(mutex_) = 0;  // by WaitForWork
  bool room_freed_ ABSL_GUARDED_BY(mutex_) = false;     // since WaitForWork
  bool admitting_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_REQUEST_QUEUE_H_
