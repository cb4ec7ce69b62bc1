// The runs that hold device memory, and the passes in progress. Admits runs,
// and ends them.
#ifndef QKSCOPE_SERVER_SCHEDULE_ACTIVE_RUNS_H_
#define QKSCOPE_SERVER_SCHEDULE_ACTIVE_RUNS_H_

#include <list>
#include <memory>
#include <vector>

#include "server/schedule/clock.h"
#include "server/schedule/live_pass.h"
#include "server/schedule/request_queue.h"

namespace qk {

// Used by the scheduler's thread only.
class ActiveRuns {
 public:
  // Both must outlive the object.
  ActiveRuns(RequestQueue* queue, const Clock* clock)
      : queue_(queue), clock_(clock) {}

  // In the order of their admission.
  const std::vector<std::unique_ptr<ActiveRun>>& runs() const { return runs_; }
  std::list<LivePass>& passes() { return passes_; }

  // Reserves the run's memory. Returns nullptr if that fails; then the run is
  // back in the queue, or has ended.
  ActiveRun* Admit(QueuedRun run);
  // Ends the runs that were cancelled or passed their deadline since the last
  // call.
  void EndCancelled();
  // Frees the memory of finished runs.
  void DropFinished();

 private:
  RequestQueue* const queue_;
  const Clock* const clock_;
  std::vector<std::unique_ptr<ActiveRun>> runs_;
  std::list<LivePass> passes_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_ACTIVE_RUNS_H_
