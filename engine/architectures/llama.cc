// Llama 2 and 3, SmolLM, and Mistral, which adds a window.
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/families.h"
#include "engine/architectures/gguf_config.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/hf_rope.h"
#include "engine/architectures/weight_map.h"
#include "engine/base/check.h"

namespace qk {
namespace {

constexpr absl::string_view kFields[] = {
    "attention_bias", "head_dim", "hidden_act", "hidden_size",
    "intermediate_size", "max_position_embeddings", "mlp_bias",
    "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
    "original_max_position_embeddings", "rms_norm_eps", "rope_interleaved",
    "rope_parameters", "rope_scaling", "rope_theta", "sliding_window",
    // This changes nothing.
    "is_llama_config"};

absl::Status ReadWindow(const JsonValue& config, bool has_windows,
                        ModelConfig* model) {
  if (!has_windows) {
    if (!config.Find("sliding_window").has_value()) return absl::OkStatus();
    return Unimplemented(config, "sliding_window",
                         "not a field of this architecture");
  }
  // transformers' default; null means that there is no window.
  if (IsNull(config, "sliding_window")) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(
      const int64_t window,
      config.GetInt64InRangeOr("sliding_window", 1, kMaxContext, 4096));
  SetWindow(std::vector<bool>(model->num_layers(), true), window, model);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Architecture> LlamaFromConfig(const JsonValue& config,
                                             absl::string_view type) {
  const bool mistral = type == "mistral";
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  QK_RETURN_IF_ERROR(RequireFalse(config, {"rope_interleaved"}));
  if (mistral) {
    QK_RETURN_IF_ERROR(RequireFalse(config, {"attention_bias", "mlp_bias"}));
  }
  DecoderFields fields;
  if (mistral) {
    fields.default_context = 131072;
    fields.default_kv_heads = 8;
  }
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(config, fields));
  QK_ASSIGN_OR_RETURN(const bool attention_bias,
                      config.GetBoolOr("attention_bias", false));
  QK_ASSIGN_OR_RETURN(const bool mlp_bias, config.GetBoolOr("mlp_bias", false));
  for (LayerConfig& layer : model.layers) {
    layer.attention.qkv_bias = layer.attention.o_bias = attention_bias;
    layer.mlp.bias = mlp_bias;
  }
  QK_RETURN_IF_ERROR(ReadWindow(config, mistral, &model));
  QK_RETURN_IF_ERROR(SetRope(config, RopeFields{}, &model));
  return MapWeights(std::move(model), LlamaNames());
}

absl::StatusOr<Architecture> LlamaFromGguf(const GgufFile& file,
                                           absl::string_view type) {
  const GgufReader reader(file, type);
  QK_RETURN_IF_ERROR(reader.RefuseUnknownKeys({}));
  QK_ASSIGN_OR_RETURN(ModelConfig model, reader.ReadDecoder(NormKind::kRms));
  QK_ASSIGN_OR_RETURN(const RopeConfig rope, reader.ReadRope(model));
  const int head_dim = model.layers[0].attention.head_dim;
  if (rope.rotary_dims != head_dim) {
    return absl::UnimplementedError(
        absl::StrCat(reader.Key("rope.dimension_count"), ": ", rope.rotary_dims,
                     " of a head_dim of ", head_dim, " is not implemented"));
  }
  for (LayerConfig& layer : model.layers) layer.attention.rope = rope;
  WeightNames names = GgufNames(file);
  names.interleaved = true;
  Architecture a = MapWeights(std::move(model), names);
  // The converter drops the window of Mistral 7B 0.1, the only one with one.
  QK_ASSIGN_OR_RETURN(const absl::string_view name,
                      file.GetStringOr("general.name", ""));
  const std::string lower = absl::AsciiStrToLower(name);
  if (absl::StrContains(lower, "mistral") && absl::StrContains(lower, "0.1")) {
    reader.WarnOfNoWindow(&a);
  }
  // Llama 3.1 and later store their scaling as a tensor.
  if (file.Find("rope_freqs.weight") != nullptr) {
    a.rope_factors = {"rope_freqs.weight", {head_dim / 2}};
  }
  return a;
}

}  // namespace qk
