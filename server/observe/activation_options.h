// What the operator says about the metrics of activations.
#ifndef QKSCOPE_SERVER_OBSERVE_ACTIVATION_OPTIONS_H_
#define QKSCOPE_SERVER_OBSERVE_ACTIVATION_OPTIONS_H_

#include <string>

namespace qk {

inline constexpr int kMaxActivationModels = 50;

struct ActivationOptions {
  // Models that are shown by layer: those used last. At most
  // kMaxActivationModels.
  int models = 4;
  // Where baselines are kept; empty: nowhere.
  std::string baseline_dir = {};
  // Share of the prompts of Score and Generate that are measured, [0, 1].
  double sampling = 0;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_ACTIVATION_OPTIONS_H_
