// RoPE frequencies under their scalings, as transformers computes them
// (modeling_rope_utils.py): in float32 where it uses float32, because the
// goldens show that this matters far from position 0. Each function takes a
// RopeConfig of unscaled frequencies.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_ROPE_SCALING_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_ROPE_SCALING_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/types/model_config.h"

namespace qk {

// No scaling.
RopeConfig PlainRope(double theta, int rotary_dims);

// Divides every position by `factor`.
void ApplyLinear(double factor, RopeConfig* rope);

// Dynamic NTK: theta grows once a sequence is longer than `context`.
void ApplyDynamic(double factor, int context, RopeConfig* rope);

// Llama 3.1 divides low frequencies by `factor`, keeps high ones, and blends
// those between by their wavelength.
struct Llama3Scaling {
  double factor = 0, low_freq_factor = 0, high_freq_factor = 0;
  double original_context = 0;
};
void ApplyLlama3(const Llama3Scaling& scaling, RopeConfig* rope);

// YaRN (arXiv:2309.00071) interpolates pairs that turn less than `beta_slow`
// times within the original context, keeps those that turn more than
// `beta_fast` times, and uses a ramp between.
struct YarnScaling {
  double factor = 1, original_context = 0;
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;  // round the ramp's ends to whole pairs
  std::optional<double>
      attention_factor;  // unset: computed from `factor` and these
  double mscale = 0, mscale_all_dim = 0;
};
void ApplyYarn(const YarnScaling& scaling, RopeConfig* rope);

// LongRoPE (arXiv:2402.13753) divides each pair by a factor of its own: from
// one set up to `original_context` positions, from the other beyond. Both sizes
// must be rotary_dims / 2. INVALID_ARGUMENT: a factor that is not > 0.
absl::Status ApplyLongRope(absl::Span<const float> short_factors,
                           absl::Span<const float> long_factors,
                           int original_context, RopeConfig* rope);
// The factor by which LongRoPE multiplies cos and sin if the files give none.
double LongRopeAttentionFactor(double factor, double original_context);

// Divides each frequency by its factor. GGUF files store Llama 3's scaling so.
absl::Status DivideFrequencies(absl::Span<const float> factors,
                               RopeConfig* rope);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_ROPE_SCALING_H_
