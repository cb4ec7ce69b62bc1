// Runs a pass over a ragged batch, step by step.
#ifndef QKSCOPE_ENGINE_PASS_H_
#define QKSCOPE_ENGINE_PASS_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/step_clock.h"
#include "engine/steps.h"

namespace qk {

class Model;
class Sequence;
class Batch;
class LmHead;

// A pass in progress over some sequences of one model. A step is a layer, or
// part of one if the pass has many rows. Other passes may run between two
// steps.
//
//   Pass pass(model, sequences);
//   while (!pass.done()) pass.RunStep();    // checks for cancellation
//   absl::Status status = pass.Finish();    // waits for the device
class Pass {
 public:
  // `sequences` (not empty, all of `model`) must outlive the pass.
  Pass(const Model& model, absl::Span<Sequence* const> sequences);
  ~Pass();

  // Runs the next step: first the layers of the vision tower if there are
  // images, then the model's layers, then the requested logits, a tile at a
  // time. Sequences whose run was cancelled leave. Returns once the device has
  // done all steps but the last few (StepClock).
  void RunStep();
  // Removes cancelled sequences without running anything. Their runs may free
  // their memory afterwards: the pass no longer refers to them.
  void DropCancelled();
  // True once every step has run, the pass has failed, or no sequence is left.
  bool done() const;
  // Waits for the device and returns the first error of the pass.
  // RESOURCE_EXHAUSTED: the host was out of memory.
  absl::Status Finish();
  // The number of rows at the start.
  int rows() const;
  // The device's seconds of the steps that it has done: of all after Finish.
  double Seconds() { return clock_.Seconds(); }

 private:
  // Runs `step`, and ends the pass if the host is out of memory.
  template <typename Step>
  void Guard(const Step& step);
  void RunNext();

  const Model& model_;
  StepClock clock_;
  std::unique_ptr<Batch> batch_;
  std::unique_ptr<LmHead> lm_head_;  // once the layers have run
  int next_layer_ = 0;
  Steps layer_;  // the layer in progress
  int rows_ = 0;
  absl::Status status_;  // the first error that Guard met
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_PASS_H_
