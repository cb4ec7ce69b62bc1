// RoPE frequencies under their scalings, as transformers computes them
// (modeling_rope_utils.py): in float32 where it does, which the goldens show to
// matter far from position 0. Each takes a RopeConfig of unscaled frequencies.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_ROPE_SCALING_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_ROPE_SCALING_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/types/model_config.h"

namespace qk {

// Unscaled.
RopeConfig PlainRope(double theta, int rotary_dims);

// Every position divided by `factor`.
void ApplyLinear(double factor, RopeConfig* rope);

// Dynamic NTK: theta grows once a sequence is longer than `context`.
void ApplyDynamic(double factor, int context, RopeConfig* rope);

// Llama 3.1: low frequencies are divided by `factor`, high ones kept, those
// between blended by where their wavelength lies.
struct Llama3Scaling {
  double factor = 0, low_freq_factor = 0, high_freq_factor = 0;
  double original_context = 0;
};
void ApplyLlama3(const Llama3Scaling& scaling, RopeConfig* rope);

// YaRN (arXiv:2309.00071): pairs that turn less than `beta_slow` times within
// the original context are interpolated, those that turn more than `beta_fast`
// times are kept, a ramp between.
struct YarnScaling {
  double factor = 1, original_context = 0;
  double beta_fast = 32, beta_slow = 1;
  bool truncate = true;                    // the ramp's ends to whole pairs
  std::optional<double> attention_factor;  // else from `factor` and these
  double mscale = 0, mscale_all_dim = 0;
};
void ApplyYarn(const YarnScaling& scaling, RopeConfig* rope);

// LongRoPE (arXiv:2402.13753): each pair divided by a factor of its own, of one
// set up to `original_context` positions and of the other beyond. The sizes
// must be rotary_dims / 2. INVALID_ARGUMENT: a factor that is not > 0.
absl::Status ApplyLongRope(absl::Span<const float> short_factors,
                           absl::Span<const float> long_factors,
                           int original_context, RopeConfig* rope);
// What LongRoPE multiplies cos and sin with where the files do not say.
double LongRopeAttentionFactor(double factor, double original_context);

// Divides each frequency by its factor, as GGUF files store Llama 3's scaling.
absl::Status DivideFrequencies(absl::Span<const float> factors,
                               RopeConfig* rope);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_ROPE_SCALING_H_
