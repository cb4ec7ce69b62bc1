// The baseline that AnalyzeManySpec.save_baseline makes of a stream's prompts.
#ifndef QKSCOPE_SERVER_CALLS_BASELINE_OF_PROMPTS_H_
#define QKSCOPE_SERVER_CALLS_BASELINE_OF_PROMPTS_H_

#include <memory>

#include "absl/status/status.h"
#include "engine/types/results.h"
#include "server/observe/activation_metrics.h"

namespace qk {

// Not thread-safe.
class BaselineOfPrompts {
 public:
  // Adds a frame with norms over tokens of a prompt that ran on `model`;
  // nullptr: it is not loaded any more.
  void Add(const std::shared_ptr<ActivationModel>& model,
           const LayerFrame& frame);
  // All prompts were added. FAILED_PRECONDITION, too, if not all ran on the
  // same model; else as ActivationMetrics::SaveBaseline.
  absl::Status Save(ActivationMetrics* metrics);

 private:
  std::shared_ptr<ActivationModel> model_;
  MeanPatterns patterns_;
  bool model_changed_ = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_BASELINE_OF_PROMPTS_H_
