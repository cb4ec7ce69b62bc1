// What runs next: the choice among flows, and what goes into a new pass.
#ifndef QKSCOPE_SERVER_SCHEDULE_PASS_PLANNER_H_
#define QKSCOPE_SERVER_SCHEDULE_PASS_PLANNER_H_

#include <cstdint>
#include <deque>
#include <map>

#include "absl/time/time.h"
#include "server/schedule/active_runs.h"
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
  // All but the options outlive the planner.
  PassPlanner(const SchedulerOptions& options, Device* device,
              const RowTime* row_time, RequestQueue* queue, ActiveRuns* active)
      : options_(options),
        device_(device),
        row_time_(row_time),
        queue_(queue),
        active_(active) {}

  // The pass to run for the next slice: one in progress, or a new one if its
  // flow is due one. nullptr: nothing can run before `*wake`.
  LivePass* Choose(absl::Time* wake);

 private:
  // What a flow could do next.
  struct FlowWork {
    FlowDemand demand;
    std::deque<ActiveRun*> idle;  // runs that want another pass
    LivePass* pass = nullptr;     // its pass that was chosen longest ago
    bool has_long_pass = false;
    uint64_t last = 0;  // turn
  };
  using Work = std::map<Flow*, FlowWork>;
  // A flow's turns, in a count over all slices.
  struct Turns {
    uint64_t last = 0;      // of any slice
    uint64_t last_new = 0;  // of a new pass
    // A waiting run was too long to join the flow's last pass: it goes next.
    bool owes_waiting = false;
  };

  Work FindWork(absl::Time* wake);
  LivePass* StartPass(Flow* first, Work* work);
  LivePass* StartComparison(FlowWork* work);
  // Of the models that the flow's runs want, the one served longest ago.
  const Model* ChooseModel(const FlowWork& work);
  // Puts the flow's next run into the plan. False: none of them can join.
  bool PlanNext(Flow* flow, int limit, FlowWork* work, PassPlan* plan);
  bool PlanIdle(int limit, FlowWork* work, PassPlan* plan);
  bool PlanWaiting(Flow* flow, int limit, FlowWork* work, PassPlan* plan);
  // Puts those of the run's sequences into the plan that fit; the first of a
  // pass always does.
  bool AddSequences(ActiveRun* active, int limit, PassPlan* plan);
  // How many rows a slice is enough for.
  int SliceRows() const;

  const SchedulerOptions options_;
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
