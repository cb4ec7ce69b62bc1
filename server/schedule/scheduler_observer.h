// Receives the scheduler's events, for the metrics.
#ifndef QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OBSERVER_H_
#define QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OBSERVER_H_

#include "absl/status/status.h"

namespace qk {

class Model;

// The scheduler's thread calls these functions. Only OnQueue may be called on
// any thread; it is called under the scheduler's lock, so it must not call the
// scheduler.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnPass(const Model& model, int rows, int sequences,
                      double seconds, const absl::Status& status) = 0;
  virtual void OnQueue(int waiting_requests, int running_requests) = 0;
  // A cancelled request's memory was freed `seconds` after its cancellation.
  virtual void OnCancelled(double seconds) = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OBSERVER_H_
