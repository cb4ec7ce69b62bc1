// Runs that hold device memory, and passes in progress. Only the scheduler's
// thread uses them.
#ifndef QKSCOPE_SERVER_SCHEDULE_LIVE_PASS_H_
#define QKSCOPE_SERVER_SCHEDULE_LIVE_PASS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "server/schedule/device.h"
#include "server/schedule/queued_run.h"

namespace qk {

struct ActiveRun {
  QueuedRun origin;
  double seconds = 0;  // device time so far
  bool in_pass = false;

  Run& run() const { return *origin.scheduled.run; }
};

struct PassPlan {
  struct Part {
    ActiveRun* active;
    std::vector<Sequence*> sequences;
    int rows = 0;
  };

  const Model* model = nullptr;
  std::vector<Sequence*> sequences;  // of all parts
  int rows = 0;
  int most_rows = 0;  // PassReport::most_rows
  std::vector<Part> parts;
};

struct LivePass {
  PassPlan plan;
  std::unique_ptr<DevicePass> pass;
  double seconds = 0;          // device time so far
  uint64_t turn = 0;           // number of the slice it was last chosen for
  bool is_long = false;        // takes longer than a slice
  bool is_comparison = false;  // compares a run's arms, without a model
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_LIVE_PASS_H_
