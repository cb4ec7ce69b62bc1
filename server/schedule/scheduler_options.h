// The scheduler's options.
#ifndef QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OPTIONS_H_
#define QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OPTIONS_H_

#include "absl/time/time.h"

namespace qk {

struct SchedulerOptions {
  int max_queued_requests = 256;
  int max_rows_per_pass = 4096;
  // Limit for a pass of several runs. A pass with more rows takes memory that
  // the estimates of several small runs do not include (Tiles::step_rows).
  int max_rows_per_flow = 512;
  // How long a pass runs before the scheduler chooses again.
  absl::Duration slice = absl::Milliseconds(100);
  // How long an idle device waits at most for more requests after the first.
  absl::Duration max_gather = absl::Microseconds(400);
  // False: the scheduler has no thread, and a simulation calls RunNextSlice.
  bool own_thread = true;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_SCHEDULER_OPTIONS_H_
