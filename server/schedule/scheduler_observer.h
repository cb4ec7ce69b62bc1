// Receives the scheduler's events, for the metrics.
#ifndef QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OBSERVER_H_
#define QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OBSERVER_H_

#include "absl/status/status.h"

namespace qk {

class Model;

// A pass that has ended.
struct PassReport {
  const Model* model = nullptr;  // alive during OnPass
  int rows = 0;
  // The rows that the pass could have had with more work of the same kind; at
  // least `rows`.
  int most_rows = 0;
  int sequences = 0;
  double seconds = 0;
  absl::Status status;
};

// The scheduler's thread calls these functions. Only OnQueue may be called on
// any thread; it is called under the scheduler's lock, so it must not call the
// scheduler.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnPass(const PassReport& pass) = 0;
  virtual void OnQueue(int waiting_requests, int running_requests) = 0;
  // A cancelled request's memory was freed `seconds` after its cancellation.
  virtual void OnCancelled(double seconds) = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OBSERVER_H_
