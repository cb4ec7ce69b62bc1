// The runs that hold memory of the device and the passes in progress: how runs
// get in, and how they end.
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
  // Both outlive it.
  ActiveRuns(RequestQueue* queue, const Clock* clock)
      : queue_(queue), clock_(clock) {}

  // By admission.
  const std::vector<std::unique_ptr<ActiveRun>>& runs() const { return runs_; }
  std::list<LivePass>& passes() { return passes_; }

  // Gives the run its memory. nullptr: there was none, and the run is back in
  // the queue or over.
  ActiveRun* Admit(QueuedRun run);
  // Ends what was cancelled or is past its deadline since the last call.
  void EndCancelled();
  // Frees the memory of runs that are over.
  void DropFinished();

 private:
  RequestQueue* const queue_;
  const Clock* const clock_;
  std::vector<std::unique_ptr<ActiveRun>> runs_;
  std::list<LivePass> passes_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_ACTIVE_RUNS_H_
