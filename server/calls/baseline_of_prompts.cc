#include "server/calls/baseline_of_prompts.h"

#include <utility>

namespace qk {

void BaselineOfPrompts::Add(const std::shared_ptr<ActivationModel>& model,
                            const LayerFrame& frame) {
  if (model_ == nullptr) model_ = model;
  model_changed_ = model_changed_ || model == nullptr || model != model_;
  const auto matrix = ActivationMatrixOf(frame.point);
  // The tower's matrices have other shapes.
  if (model_changed_ || !matrix.has_value() || frame.image >= 0) return;
  if (const auto pattern = PatternOf(frame)) {
    patterns_.Add({*matrix, frame.layer}, frame.shape, *pattern);
  }
}

absl::Status BaselineOfPrompts::Save(ActivationMetrics* metrics) {
  if (model_changed_) {
    return absl::FailedPreconditionError(
        "save_baseline: the model was unloaded or replaced meanwhile; try "
        "again");
  }
  if (model_ == nullptr || patterns_.means().empty()) {
    return absl::FailedPreconditionError(
        "save_baseline: the prompts have no norms that are finite");
  }
  return metrics->SaveBaseline(model_, std::move(patterns_)).status();
}

}  // namespace qk
