// Reads the RoPE of a config.json: "rope_theta" beside "rope_scaling", or
// transformers 5's "rope_parameters", which holds both.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_HF_ROPE_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_HF_ROPE_H_

#include <optional>

#include "absl/status/statusor.h"
#include "engine/formats/json.h"
#include "engine/types/model_config.h"

namespace qk {

struct RopeFields {
  const char* theta = "rope_theta";
  // The field with the share of a head's dims that rotate; null: all rotate.
  const char* rotary_share = nullptr;
  // The member of "rope_parameters" that describes these layers; null: its own
  // members do.
  const char* layer_type = nullptr;
  bool reads_scaling = true;  // whether "rope_scaling" applies to these layers

  double default_theta = 10000.0;
  double default_rotary_share = 1.0;
  // Used if "original_max_position_embeddings" is missing; 0: the model's
  // context.
  int default_original_context = 0;
  // The first LongRoPE files say "su" or "yarn".
  bool yarn_is_longrope = false;
  // M-RoPE: reads the {temporal, height, width} pairs, or takes these.
  std::vector<int> default_sections;
};

// Reads the RoPE for heads of `head_dim` dims in a model of `context`
// positions. Both places may exist if they say the same. UNIMPLEMENTED names a
// kind or a member that the engine does not have.
absl::StatusOr<RopeConfig> ReadRope(const JsonValue& config,
                                    const RopeFields& fields, int head_dim,
                                    int context);

// Calls ReadRope for every layer that has attention.
absl::Status SetRope(const JsonValue& config, const RopeFields& fields,
                     ModelConfig* model);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_HF_ROPE_H_
