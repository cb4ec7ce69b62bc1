// Chooses the next token from logits.
#ifndef QKSCOPE_ENGINE_RUN_SAMPLER_H_
#define QKSCOPE_ENGINE_RUN_SAMPLER_H_

#include <cstdint>

#include "absl/types/span.h"
#include "engine/types/spec.h"

namespace qk {

// Returns the id for decode step `step` (from 0), sampled from logits (vocab)
// by temperature, then top_k, then top_p, in transformers' order. The random
// number comes from Philox, keyed by the seed and the step.
// `sampling.temperature` must be > 0; at 0 the caller takes the top-1 id.
// Logits that are not finite get no weight.
int32_t Sample(absl::Span<const float> logits, const SamplingSpec& sampling,
               int step);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_RUN_SAMPLER_H_
