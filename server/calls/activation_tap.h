// Measures the activations of a prompt whose client captures none, for the
// metrics. The client sees nothing of it: the frames end here.
#ifndef QKSCOPE_SERVER_CALLS_ACTIVATION_TAP_H_
#define QKSCOPE_SERVER_CALLS_ACTIVATION_TAP_H_

#include <memory>
#include <vector>

#include "engine/types/results.h"
#include "engine/types/spec.h"
#include "server/calls/server_core.h"
#include "server/observe/activation_run.h"

namespace qk {

// Hands on everything but frames. They wait, within the metrics' limit on
// waiting frames, until the prompt is done, and are then measured on the
// executor's threads. A prompt that finds no room is not measured.
class ActivationTap : public RunSink {
 public:
  // If it is the prompt's turn to be measured (ActivationMetrics::Choose), lets
  // `spec`, which captures nothing, capture what the metrics want, and returns
  // the run's sink; else nullptr. `to` is what the sink hands on to.
  static std::shared_ptr<ActivationTap> Create(const RunParts& parts,
                                               ActivationSource source,
                                               std::shared_ptr<RunSink> to,
                                               RunSpec* spec);
  ~ActivationTap() override;

  void OnLayer(LayerFrame frame) override;
  void OnApplied(AppliedRule applied) override;
  void OnToken(TokenEvent token) override;
  void OnComparison(ComparisonResult comparison) override;
  void OnLogits(int arm, std::vector<PositionLogits> logits) override;
  void OnScore(ScoreResult score) override;
  void OnFinished(const absl::Status& status,
                  const std::vector<ArmSummary>& arms,
                  const RunTimes& times) override;

 private:
  struct Waiting;

  ActivationTap(Executor* executor, std::shared_ptr<RunSink> to,
                std::shared_ptr<Waiting> waiting);
  // The prompt's frames are complete.
  void Measure();
  void Drop();

  Executor* const executor_;
  const std::shared_ptr<RunSink> to_;
  std::shared_ptr<Waiting> waiting_;  // nullptr: measured, or dropped
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_ACTIVATION_TAP_H_
