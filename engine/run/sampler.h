// Chooses the next token from logits.
#ifndef QKSCOPE_ENGINE_RUN_SAMPLER_H_
#define QKSCOPE_ENGINE_RUN_SAMPLER_H_

#include <cstdint>

#include "absl/types/span.h"
#include "engine/types/spec.h"

namespace qk {

// The id at `step` (decode step, from 0) among logits (vocab): temperature,
// then top_k, then top_p, as transformers orders them. The random number comes
// from Philox keyed by the seed and the step. `sampling.temperature` > 0; with
// 0 the caller takes the top-1 id. Logits that are not finite get no weight.
int32_t Sample(absl::Span<const float> logits, const SamplingSpec& sampling,
               int step);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_RUN_SAMPLER_H_
