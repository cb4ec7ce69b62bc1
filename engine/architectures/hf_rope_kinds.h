// The kinds of RoPE scaling of a config.json.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_HF_ROPE_KINDS_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_HF_ROPE_KINDS_H_

#include <string>

#include "absl/status/status.h"
#include "engine/formats/json.h"
#include "engine/types/model_config.h"

namespace qk {

struct RopeContext {
  int positions = 0;  // the model's context
  int original = 0;   // the context before it was stretched
};

// Applies the scaling of that kind that `object` describes to unscaled RoPE.
// UNIMPLEMENTED: the kind is not known.
absl::Status ApplyRopeKind(const JsonValue& object, const std::string& kind,
                           const RopeContext& context, RopeConfig* rope);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_HF_ROPE_KINDS_H_
