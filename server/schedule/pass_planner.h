// Decides what runs next: chooses a flow, and plans new passes.
#ifndef QKSCOPE_SERVER_SCHEDULE_PASS_PLANNER_H_
#define QKSCOPE_SERVER_SCHEDULE_PASS_PLANNER_H_

#include <cstdint>
#include <deque>
#include <map>

#include "absl/time/time.h"
#include "server/schedule/active_runs.h"
#include "server/schedule/clock.h"
#include "server/schedule/device.h"
#include "server/schedule/flow_demand.h"
#include "server/schedule/live_pass.h"
#include "server/schedule/request_queue.h"
#include "server/schedule/row_time.h"
#include "server/schedule/scheduler_options.h"

namespace qk {

// Used by the scheduler's thread only.
class PassPlanner {
 public:
  // All but `options` must outlive the planner.
  PassPlanner(const SchedulerOptions& options, Device* device,
              const Clock* clock, const RowTime* row_time, RequestQueue* queue,
              ActiveRuns* active)
      : options_(options),
        clock_(clock),
        device_(device),
        row_time_(row_time),
        queue_(queue),
        active_(active) {}

  // Returns the pass to run for the next slice: one in progress or a new one.
  // A flow alternates between the two. nullptr: nothing can run before `*wake`.
  LivePass* Choose(absl::Time* wake);

 private:
  // What a flow could run next.
  struct FlowWork {
    FlowDemand demand;
    std::deque<ActiveRun*> idle;  // active runs that are in no pass
    LivePass* pass = nullptr;     // its least recently chosen pass
    bool has_long_pass = false;
    uint64_t last = 0;  // Turns::last
  };
  using Work = std::map<Flow*, FlowWork>;
  // When a flow was last chosen, as numbers of slices.
  struct Turns {
    uint64_t last = 0;      // for any pass
    uint64_t last_new = 0;  // for a new pass
    // The flow's oldest waiting run was too long to join a pass. It starts the
    // flow's next one.
    bool owes_waiting = false;
  };

  Work FindWork(absl::Time* wake);
  // Keeps runs whose user's budget is used up until `fits` from further passes:
  // they pause, or end if that takes long.
  void StopUsedUp(absl::Time fits, FlowWork* work);
  LivePass* StartPass(Flow* first, Work* work);
  LivePass* StartComparison(FlowWork* work);
  // Returns the least recently served of the models that the flow's runs need
  // next. nullptr: there is none.
  const Model* ChooseModel(const FlowWork& work);
  // Adds the flow's next run to the plan. Returns false if no run can join.
  bool PlanNext(Flow* flow, int limit, FlowWork* work, PassPlan* plan);
  bool PlanIdle(int limit, FlowWork* work, PassPlan* plan);
  bool PlanWaiting(Flow* flow, int limit, FlowWork* work, PassPlan* plan);
  // Adds the run's sequences that fit to the plan. The first sequence of a pass
  // always fits. Returns false if none was added.
  bool AddSequences(ActiveRun* active, int limit, PassPlan* plan);
  // The number of rows that fit into a slice.
  int SliceRows() const;
  // Limit on the rows of a pass with several runs. `shared`: of several flows.
  int RowsOfSeveral(bool shared) const;

  const SchedulerOptions options_;
  const Clock* const clock_;
  Device* const device_;
  const RowTime* const row_time_;
  RequestQueue* const queue_;
  ActiveRuns* const active_;
  std::map<const Model*, uint64_t> last_served_;
  std::map<Flow*, Turns> turns_;
  uint64_t turn_ = 0;  // slices so far
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_PASS_PLANNER_H_
