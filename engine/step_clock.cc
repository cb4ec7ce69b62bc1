#include "engine/step_clock.h"

#include <utility>

namespace qk {

void StepClock::Begin() {
  if (begin_ == nullptr) begin_ = backend_->Mark();
}

void StepClock::End() {
  steps_.push_back({std::move(begin_), backend_->Mark()});
  while (steps_.size() > kStepsAhead) {
    steps_.front().end->Wait();
    CountFirst();
  }
}

double StepClock::Seconds() {
  while (!steps_.empty() && steps_.front().end->reached()) CountFirst();
  return seconds_;
}

void StepClock::CountFirst() {
  const Step& step = steps_.front();
  seconds_ += step.end->SecondsSince(*step.begin);
  steps_.erase(steps_.begin());
}

}  // namespace qk
