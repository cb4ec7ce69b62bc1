// What the scheduler reports for the metrics.
#ifndef QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OBSERVER_H_
#define QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OBSERVER_H_

#include "absl/status/status.h"

namespace qk {

class Model;

// Called on the scheduler's thread, OnQueue on any thread and under the
// scheduler's lock: it must not call the scheduler.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnPass(const Model& model, int rows, int sequences,
                      double seconds, const absl::Status& status) = 0;
  virtual void OnQueue(int waiting_requests, int running_requests) = 0;
  // The memory of a cancelled request is free, `seconds` after its
  // cancellation.
  virtual void OnCancelled(double seconds) = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OBSERVER_H_
