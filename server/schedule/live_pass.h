// Runs that hold memory of the device, and passes in progress. Owned by the
// scheduler's thread.
#ifndef QKSCOPE_SERVER_SCHEDULE_LIVE_PASS_H_
#define QKSCOPE_SERVER_SCHEDULE_LIVE_PASS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "server/schedule/device.h"
#include "server/schedule/queued_run.h"

namespace qk {

struct ActiveRun {
  QueuedRun of;
  double seconds = 0;  // device time so far
  bool in_pass = false;

  Run& run() const { return *of.scheduled.run; }
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
  std::vector<Part> parts;
};

struct LivePass {
  PassPlan plan;
  std::unique_ptr<DevicePass> pass;
  double seconds = 0;          // device time so far
  uint64_t turn = 0;           // when it was last chosen
  bool is_long = false;        // takes longer than a slice
  bool is_comparison = false;  // of a run's arms; no pass of a model
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_LIVE_PASS_H_
