// What the config.json files of all families have in common.
#ifndef QKSCOPE_ENGINE_ARCHITECTURES_HF_CONFIG_H_
#define QKSCOPE_ENGINE_ARCHITECTURES_HF_CONFIG_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/formats/json.h"
#include "engine/types/model_config.h"

namespace qk {

// No real model comes near these bounds; the product of two fits an int64_t.
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxWidth = int64_t{1} << 20;
inline constexpr int64_t kMaxHeadDim = 1024;
inline constexpr int64_t kMaxVocab = int64_t{1} << 24;
inline constexpr int64_t kMaxContext = int64_t{1} << 24;

// How a family spells the numbers that every model has, and its defaults for
// missing fields.
struct DecoderFields {
  const char* layers = "num_hidden_layers";
  const char* hidden = "hidden_size";
  const char* intermediate = "intermediate_size";
  const char* context = "max_position_embeddings";
  const char* heads = "num_attention_heads";
  const char* kv_heads = "num_key_value_heads";  // null: one per query head
  const char* head_dim = "head_dim";             // null: hidden / heads
  const char* norm_eps = "rms_norm_eps";         // null: always the default
  const char* activation = "hidden_act";

  int default_intermediate_ratio = 0;  // of hidden; 0: the field is required
  int64_t default_vocab = 0;           // 0: the field is required
  int64_t default_context = 2048;
  int64_t default_heads = 0;     // 0: the field is required
  int64_t default_kv_heads = 0;  // 0: as many as query heads
  int64_t default_head_dim = 0;  // 0: hidden / heads
  double default_norm_eps = 1e-6;
  const char* default_activation = "silu";
  bool default_tied = false;
};

// Reads a model of equal layers: sizes, norm_eps, activation, tied_lm_head, and
// attention scaled by 1 / sqrt(head_dim). The family sets RoPE, biases and the
// rest.
absl::StatusOr<ModelConfig> ReadDecoder(const JsonValue& config,
                                        const DecoderFields& fields);

// Returns UNIMPLEMENTED for a member that might change a number: one that is
// neither in `known` nor known to change nothing in any family.
absl::Status RefuseUnknownFields(const JsonValue& config,
                                 absl::Span<const absl::string_view> known);

// Returns UNIMPLEMENTED if one of the fields exists and is not false.
absl::Status RequireFalse(const JsonValue& config,
                          absl::Span<const absl::string_view> fields);

// Returns whether the member exists and is null. JsonValue::Find treats null as
// missing, but in some families null switches a default off.
bool IsNull(const JsonValue& config, absl::string_view key);

// Returns whether two values say the same: numbers are compared as numbers, and
// members in any order.
bool SameJson(const JsonValue& a, const JsonValue& b);

// Returns a number > 0, or `missing`.
absl::StatusOr<double> ReadPositive(const JsonValue& config,
                                    absl::string_view key);
absl::StatusOr<double> ReadPositiveOr(const JsonValue& config,
                                      absl::string_view key, double missing);

// Returns the error `config: PATH.KEY: MESSAGE`.
absl::Status Unimplemented(const JsonValue& object, absl::string_view key,
                           absl::string_view message);

// Reads Hugging Face's name of an activation. UNIMPLEMENTED names `key`.
absl::StatusOr<Activation> ReadActivation(const JsonValue& config,
                                          absl::string_view key,
                                          absl::string_view missing);

// Returns which layers have a window: "layer_types" if it exists, else
// `missing`; one entry per layer.
absl::StatusOr<std::vector<bool>> ReadSlidingLayers(const JsonValue& config,
                                                    std::vector<bool> missing);

// Sets the window of those layers.
void SetWindow(const std::vector<bool>& sliding, int64_t window,
               ModelConfig* model);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_ARCHITECTURES_HF_CONFIG_H_
