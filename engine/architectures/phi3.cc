// Phi-3: fused projections, LongRoPE.
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
    "intermediate_size", "max_position_embeddings", "num_attention_heads",
    "num_hidden_layers", "num_key_value_heads",
    "original_max_position_embeddings", "partial_rotary_factor", "rms_norm_eps",
    "rope_parameters", "rope_scaling", "rope_theta", "sliding_window",
    // Fields of Phi-4-mini, accepted only with values that change nothing.
    "full_attn_mod", "interpolate_factor", "lm_head_bias", "mlp_bias"};

}  // namespace

absl::StatusOr<Architecture> Phi3FromConfig(const JsonValue& config,
                                            absl::string_view) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  QK_RETURN_IF_ERROR(
      RequireFalse(config, {"attention_bias", "lm_head_bias", "mlp_bias"}));
  for (const char* field : {"full_attn_mod", "interpolate_factor"}) {
    QK_ASSIGN_OR_RETURN(const double value, config.GetDoubleOr(field, 1));
    if (value != 1) {
      return Unimplemented(config, field,
                           absl::StrCat(value, " is not implemented"));
    }
  }
  DecoderFields fields;
  fields.default_context = 4096;
  fields.default_norm_eps = 1e-5;
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(config, fields));
  if (config.Find("sliding_window").has_value()) {
    QK_ASSIGN_OR_RETURN(
        const int64_t window,
        config.GetInt64InRange("sliding_window", 1, kMaxContext));
    SetWindow(std::vector<bool>(model.num_layers(), true), window, &model);
  }
  RopeFields rope;
  rope.rotary_share = "partial_rotary_factor";
  rope.default_original_context = 4096;
  rope.yarn_is_longrope = true;
  QK_RETURN_IF_ERROR(SetRope(config, rope, &model));
  WeightNames names = LlamaNames();
  names.qkv = "self_attn.qkv_proj";
  names.gate_up = "mlp.gate_up_proj";
  return MapWeights(std::move(model), names);
}

absl::StatusOr<Architecture> Phi3FromGguf(const GgufFile& file,
                                          absl::string_view type) {
  const GgufReader reader(file, type);
  QK_RETURN_IF_ERROR(reader.RefuseUnknownKeys({"attention.sliding_window"}));
  QK_ASSIGN_OR_RETURN(ModelConfig model, reader.ReadDecoder(NormKind::kRms));
  QK_ASSIGN_OR_RETURN(RopeConfig rope, reader.ReadRope(model));
  QK_ASSIGN_OR_RETURN(const int original,
                      reader.GetSizeOr("rope.scaling.original_context_length",
                                       kMaxContext, model.context_length));
  const bool long_rope = file.Find("rope_factors_long.weight") != nullptr;
  if (long_rope) rope.original_context = original;
  // The converter writes 0 for no window.
  QK_ASSIGN_OR_RETURN(
      const int64_t window,
      file.GetInt64InRangeOr(reader.Key("attention.sliding_window"), 0,
                             kMaxContext, 0));
  for (LayerConfig& layer : model.layers) {
    layer.attention.rope = rope;
    if (window > 0) layer.attention.sliding_window = static_cast<int>(window);
  }
  WeightNames names = GgufNames(file);
  names.gate_up = "ffn_up";
  Architecture a = MapWeights(std::move(model), names);
  if (!reader.Has("attention.sliding_window")) reader.WarnOfNoWindow(&a);
  if (long_rope) {
    a.rope_factors_long = {"rope_factors_long.weight", {rope.rotary_dims / 2}};
    a.rope_factors_short = {"rope_factors_short.weight",
                            {rope.rotary_dims / 2}};
  }
  return a;
}

}  // namespace qk
