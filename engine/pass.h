// A pass over a ragged batch, step by step.
#ifndef QKSCOPE_ENGINE_PASS_H_
#define QKSCOPE_ENGINE_PASS_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/steps.h"

namespace qk {

class Model;
class Sequence;
class Batch;
class Head;

// A pass in progress over some sequences of one model. Others may run between
// two steps: layers, or parts of a layer where the pass has many rows.
//
//   Pass pass(model, sequences);
//   while (!pass.done()) pass.RunStep();    // looks at cancel flags itself
//   absl::Status status = pass.Finish();    // waits for the device
class Pass {
 public:
  // `sequences` (not empty, all of `model`) must outlive the pass.
  Pass(const Model& model, absl::Span<Sequence* const> sequences);
  ~Pass();

  // Runs the next layer or part of one, of the vision tower first where there
  // are images; after the layers a tile of the logits that sequences asked for.
  // Sequences whose run was cancelled leave.
  void RunStep();
  // The same without running anything: afterwards the pass knows nothing of the
  // cancelled sequences, and their runs may give their memory back.
  void DropCancelled();
  // All of it ran, or no sequence is left.
  bool done() const;
  // Waits for the device. The first error of the pass, which is
  // RESOURCE_EXHAUSTED where the host was out of memory.
  absl::Status Finish();
  // Rows at the start.
  int rows() const;

 private:
  // Runs `step`, and ends the pass if the host is out of memory.
  template <typename Step>
  void Guard(const Step& step);
  void RunNext();

  const Model& model_;
  std::unique_ptr<Batch> batch_;
  std::unique_ptr<Head> head_;  // once the layers have run
  int next_layer_ = 0;
  Steps layer_;  // it
  int rows_ = 0;
  absl::Status status_;  // of Guard
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_PASS_H_
