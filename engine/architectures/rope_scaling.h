// RoPE frequencies and their scalings, as Hugging Face computes them (in
// float32, which the goldens show to matter far from position 0).
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_ROPE_SCALING_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_ROPE_SCALING_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/formats/json.h"
#include "engine/model_config.h"

namespace qk {

// Fills rope->frequencies from theta and rotary_dims, unscaled.
void SetBaseFrequencies(RopeConfig* rope);

// Applies "rope_scaling" or "rope_parameters" of a config.json. UNIMPLEMENTED
// names a kind that the engine does not have.
absl::Status ApplyRopeScaling(const JsonValue& scaling, RopeConfig* rope);

// Divides each frequency by its factor, as GGUF files store Llama 3's scaling.
absl::Status DivideFrequencies(absl::Span<const float> factors,
                               RopeConfig* rope);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_ROPE_SCALING_H_
