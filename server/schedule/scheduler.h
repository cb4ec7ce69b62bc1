// Decides which requests use the device next, and runs their passes step by
// step on one thread.
//
// Fairness: the flow (one user's requests of one class) that has used the least
// device time for its weight goes next, short work first (fair_share.h). Within
// a flow, requests take turns in the order of arrival, one run at a time. Runs
// of other flows join a pass if they do not make it much longer.
//
// Slices: a pass runs for at most `slice` (or one step) before the scheduler
// chooses again, so a long prompt is parked between two steps while others run.
// A parked pass keeps its hidden rows, but does not occupy the device. A pass
// that was expected to fit into a slice may take two, because otherwise its
// rest would wait for the turns of all other flows.
//
// Cancellations and deadlines take effect between steps, also for parked
// passes.
//
// Calls and the scheduler's thread share RequestQueue, under its lock. Only the
// thread uses ActiveRuns, PassPlanner and SliceRunner. The scheduler does not
// depend on gRPC; tests replace its device, clock and runs.
#ifndef QKSCOPE_SERVER_SCHEDULE_SCHEDULER_H_
#define QKSCOPE_SERVER_SCHEDULE_SCHEDULER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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

// Thread-safe, except RunNextSlice.
class Scheduler {
 public:
  // All but `options` must outlive the scheduler.
  Scheduler(const SchedulerOptions& options, Device* device,
            SchedulerObserver* observer, const Clock* clock);
  // Cancels the remaining requests.
  ~Scheduler();

  // Fails with RESOURCE_EXHAUSTED and ScheduleRefusalOf if the queue is full
  // (`queue full (8/8)`) or the user's budget has no room for the runs, with
  // UNAVAILABLE when draining, or with the reason why the request was
  // cancelled. The runs of a refused request are destroyed without a call to
  // their sinks. A request that has runs in the scheduler may add more even if
  // the queue is full. Another user's waiting request may end for it
  // (queue_places.h).
  absl::Status Submit(const std::shared_ptr<ScheduledRequest>& request,
                      std::vector<ScheduledRun> runs) {
    return queue_.Submit(request, std::move(runs));
  }
  // Charges the user for bytes that were sent to a client.
  void ChargeBytes(const User& user, Priority priority, int64_t bytes) {
    queue_.ChargeBytes(user, priority, bytes);
  }

  // Charges the user for the host's work. Like device time, it counts for the
  // budget and for whose turn it is.
  void ChargeHost(const User& user, Priority priority, double seconds) {
    queue_.ChargeHost(user, priority, seconds);
  }
  // Keeps `bytes` of the user's budget for an answer that is about to be sent.
  // Fails as Submit does.
  absl::StatusOr<std::unique_ptr<UsageHold>> HoldBytes(const User& user,
                                                       int64_t bytes) {
    return queue_.HoldBytes(user, bytes);
  }
  // Fails as Submit does if the user's budget is used up.
  absl::Status CheckBudgetLeft(const User& user) {
    return queue_.CheckBudgetLeft(user);
  }
  // Call the function, which may outlive the scheduler, when runs may find room
  // (RunRoom) that had none.
  std::function<void()> RoomSignal() const { return queue_.RoomSignal(); }

  SchedulerState state() const { return queue_.state(); }
  // Requests whose calls have not ended, in the order of arrival.
  std::vector<ListedRequest> List() const { return queue_.List(); }
  // nullptr: there is no such request.
  std::shared_ptr<ScheduledRequest> Find(const std::string& id) const {
    return queue_.Find(id);
  }
  // All users who have sent a request since the server started.
  std::vector<UserState> Users() { return queue_.Users(); }

  // Cheaper than Users, which calls need as they run.
  SchedulerLoad Load() { return queue_.Load(); }

  // From now on Submit fails with UNAVAILABLE `server is shutting down`.
  void StopAdmission() { queue_.StopAdmission(); }
  // Waits until no request is left. Returns false if the deadline came first.
  bool WaitUntilIdle(absl::Time deadline) {
    return queue_.WaitUntilIdle(deadline);
  }
  void CancelAll(const absl::Status& reason) { queue_.CancelAll(reason); }

  // For a scheduler without its own thread: ends cancelled runs, then runs one
  // slice. Returns false if there was nothing to run; then nothing can run
  // before `*wake`, unless a request arrives.
  bool RunNextSlice(absl::Time* wake);

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
