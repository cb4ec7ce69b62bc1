// Decides which requests have the device next, and runs their passes step by
// step on one thread.
//
// Fairness: the flow (one user's requests of one class) that has had the least
// device time for its weight goes next, short work first (fair_share.h). Within
// a flow, requests go by arrival, one run of each in turn. Runs of other flows
// join a pass as long as they do not make it much longer.
//
// Slices: a pass runs for at most `slice` (or one step) before the scheduler
// chooses again, so a long prompt is parked between two steps while others go
// on. A parked pass holds its hidden rows and nothing of the device. A pass
// that was expected to fit into a slice gets twice that, because its rest would
// have to wait for everybody's turn.
//
// Cancellations and deadlines take effect between steps, for parked passes too.
//
// RequestQueue is what calls share with the thread, under a lock. ActiveRuns,
// PassPlanner and SliceRunner belong to the thread alone. No gRPC here: tests
// use a made-up device, clock and runs.
#ifndef QKSCOPE_SERVER_SCHEDULE_SCHEDULER_H_
#define QKSCOPE_SERVER_SCHEDULE_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/schedule/active_runs.h"
#include "server/schedule/clock.h"
#include "server/schedule/device.h"
#include "server/schedule/listing.h"
#include "server/schedule/pass_planner.h"
#include "server/schedule/request_queue.h"
#include "server/schedule/row_time.h"
#include "server/schedule/scheduled_request.h"
#include "server/schedule/scheduler_observer.h"
#include "server/schedule/scheduler_options.h"
#include "server/schedule/slice_runner.h"

namespace qk {

// Thread-safe, but for Step.
class Scheduler {
 public:
  // All but the options outlive the scheduler.
  Scheduler(const SchedulerOptions& options, Device* device,
            SchedulerObserver* observer, const Clock* clock);
  // Cancels what is left.
  ~Scheduler();

  // RESOURCE_EXHAUSTED `queue full (8/8)` or a limit of the user's budget (then
  // with BudgetRetryDelay), UNAVAILABLE when draining, or why the request was
  // cancelled. The runs of a refused request are destroyed without a call to
  // their sinks. A request that has runs in the scheduler may add more even if
  // the queue is full.
  absl::Status Submit(const std::shared_ptr<ScheduledRequest>& request,
                      std::vector<ScheduledRun> runs) {
    return queue_.Submit(request, std::move(runs));
  }
  // Charges the user for bytes that were sent to a client.
  void ChargeBytes(const User& user, Priority priority, int64_t bytes) {
    queue_.ChargeBytes(user, priority, bytes);
  }

  SchedulerState state() const { return queue_.state(); }
  // Requests whose calls have not ended, by arrival.
  std::vector<ListedRequest> List() const { return queue_.List(); }
  // nullptr: there is no such request.
  std::shared_ptr<ScheduledRequest> Find(const std::string& id) const {
    return queue_.Find(id);
  }
  // All users who have ever sent a request.
  std::vector<UserState> Users() { return queue_.Users(); }

  // From now on Submit fails with UNAVAILABLE `server is shutting down`.
  void StopAdmission() { queue_.StopAdmission(); }
  // False: the deadline came first.
  bool WaitUntilIdle(absl::Time deadline) {
    return queue_.WaitUntilIdle(deadline);
  }
  void CancelAll(const absl::Status& reason) { queue_.CancelAll(reason); }

  // For a scheduler without a thread of its own: runs one slice, and ends what
  // was cancelled. False: there was nothing to run; `*wake` says when there may
  // be.
  bool Step(absl::Time* wake);

 private:
  void Loop();

  RowTime row_time_;
  RequestQueue queue_;
  ActiveRuns active_;
  PassPlanner planner_;
  SliceRunner runner_;
  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_SCHEDULER_H_
