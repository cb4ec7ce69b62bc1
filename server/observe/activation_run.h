// What one run adds to the metrics of activations.
#ifndef QKSCOPE_SERVER_OBSERVE_ACTIVATION_RUN_H_
#define QKSCOPE_SERVER_OBSERVE_ACTIVATION_RUN_H_

#include <memory>
#include <vector>

#include "engine/types/results.h"
#include "engine/types/spec.h"
#include "server/observe/activation_metrics.h"
#include "server/observe/activation_model.h"

namespace qk {

// Not thread-safe.
class ActivationRun {
 public:
  // An empty run adds nothing.
  ActivationRun() = default;
  // `metrics` must outlive it.
  ActivationRun(ActivationMetrics* metrics, const RunSpec& spec,
                ActivationSource source);

  // Takes any frame of the run, with its statistics if it has some. It takes
  // some microseconds, so it is not for the scheduler's thread.
  void Add(const LayerFrame& frame);
  // All frames are there.
  void Finish();

 private:
  struct Arm {
    std::shared_ptr<ActivationModel> model;
    ArmKind kind = ArmKind::kClean;
    // The first of its kind and model: the gauges show it.
    bool shown = false;
  };

  bool Measures(const LayerFrame& frame) const;

  ActivationMetrics* metrics_ = nullptr;
  ActivationSource source_ = ActivationSource::kAnalyze;
  uint64_t number_ = 0;  // RecentActivations::NewRun
  std::vector<Arm> arms_;
  bool whole_prompt_ = false;  // no positions are left out
  // Those that frames were measured of.
  std::vector<std::shared_ptr<ActivationModel>> measured_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_ACTIVATION_RUN_H_
