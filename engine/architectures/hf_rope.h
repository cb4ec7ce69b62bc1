// RoPE of a config.json: "rope_theta" and "rope_scaling" beside each other, or
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
  // The share of a head's dims that turn; null: all of them do.
  const char* rotary_share = nullptr;
  // Member of "rope_parameters" that holds what it says of these layers; null:
  // its own members do.
  const char* layer_type = nullptr;
  bool reads_scaling = true;  // "rope_scaling" is for these layers

  double default_theta = 10000.0;
  double default_rotary_share = 1.0;
  // Where "original_max_position_embeddings" is missing; 0: the model's.
  int default_original_context = 0;
  // The first files of LongRoPE say "su" or "yarn".
  bool yarn_is_longrope = false;
  // {temporal, height, width} pairs of M-RoPE are read, or these taken.
  std::vector<int> default_sections;
};

// Of heads of `head_dim` dims in a model of `context` positions. Both places
// may be there if they say the same. UNIMPLEMENTED names a kind or a member
// that the engine does not have.
absl::StatusOr<RopeConfig> ReadRope(const JsonValue& config,
                                    const RopeFields& fields, int head_dim,
                                    int context);

// ReadRope for every layer of the model that has attention.
absl::Status SetRope(const JsonValue& config, const RopeFields& fields,
                     ModelConfig* model);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_HF_ROPE_H_
