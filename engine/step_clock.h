// Times the steps of a pass by the device's clock, and holds the host back so
// that it is not far ahead: a cancellation, and the choice of who goes next,
// then come in time.
//
//   clock.Begin();
//   ... ops
//   clock.End();  // may wait for an earlier step
#ifndef QKSCOPE_ENGINE_STEP_CLOCK_H_
#define QKSCOPE_ENGINE_STEP_CLOCK_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "engine/backend/backend.h"

namespace qk {

class StepClock {
 public:
  // How many steps the host may be ahead of the device.
  static constexpr size_t kStepsAhead = 2;

  explicit StepClock(Backend* backend) : backend_(backend) {}

  // If a step has begun and not ended, it goes on.
  void Begin();
  void End();
  // The device's seconds of the steps that it has done.
  double Seconds();

 private:
  struct Step {
    std::unique_ptr<Moment> begin, end;
  };
  void CountFirst();

  Backend* backend_;
  std::unique_ptr<Moment> begin_;  // of the step that has begun
  std::vector<Step> steps_;        // that have ended on the host, oldest first
  double seconds_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_STEP_CLOCK_H_
