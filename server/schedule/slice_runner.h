// Runs a pass for one slice, and charges the users for it.
#ifndef QKSCOPE_SERVER_SCHEDULE_SLICE_RUNNER_H_
#define QKSCOPE_SERVER_SCHEDULE_SLICE_RUNNER_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/schedule/active_runs.h"
#include "server/schedule/clock.h"
#include "server/schedule/live_pass.h"
#include "server/schedule/request_queue.h"
#include "server/schedule/row_time.h"
#include "server/schedule/scheduler_observer.h"

namespace qk {

// Used by the scheduler's thread only.
class SliceRunner {
 public:
  // All pointers must outlive the runner.
  SliceRunner(absl::Duration slice, const Clock* clock, RowTime* row_time,
              SchedulerObserver* observer, RequestQueue* queue,
              ActiveRuns* active)
      : slice_(slice),
        clock_(clock),
        row_time_(row_time),
        observer_(observer),
        queue_(queue),
        active_(active) {}

  // Runs steps until the pass is done or the slice is over. Finishes and
  // removes a pass that is done.
  void RunSlice(LivePass* live);

 private:
  void ChargeSteps(LivePass* live);
  void Charge(const PassPlan& plan, double seconds);
  void FinishPass(LivePass* live, const absl::Status& status);

  const absl::Duration slice_;
  const Clock* const clock_;
  RowTime* const row_time_;
  SchedulerObserver* const observer_;
  RequestQueue* const queue_;
  ActiveRuns* const active_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_SLICE_RUNNER_H_
