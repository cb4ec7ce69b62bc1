// Jamba: mostly Mamba layers, some attention layers without positions, and some
// MLPs that are a choice of experts.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/architectures/families.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/weight_map.h"
#include "engine/base/check.h"

namespace qk {
namespace {

constexpr absl::string_view kFields[] = {
    "attn_layer_offset", "attn_layer_period", "expert_layer_offset",
    "expert_layer_period", "head_dim", "hidden_act", "hidden_size",
    "intermediate_size", "mamba_conv_bias", "mamba_d_conv", "mamba_d_state",
    "mamba_dt_rank", "mamba_expand", "mamba_inner_layernorms",
    "mamba_proj_bias", "max_position_embeddings", "num_attention_heads",
    "num_experts", "num_experts_per_tok", "num_hidden_layers",
    "num_key_value_heads", "num_local_experts", "rms_norm_eps",
    "sliding_window",
    // The choice of rows and of kernels changes nothing.
    "calc_logits_for_entire_prompt", "num_logits_to_keep",
    "use_associative_scan", "use_mamba_kernels", "use_mambapy"};

// Layer i is of this kind if i % period == offset.
struct Every {
  int64_t period = 1, offset = 0;

  bool Has(int layer) const { return layer % period == offset; }
};

absl::StatusOr<Every> ReadEvery(const JsonValue& config, const char* period,
                                const char* offset, Every missing) {
  Every every;
  QK_ASSIGN_OR_RETURN(every.period, config.GetInt64InRangeOr(
                                        period, 1, kMaxLayers, missing.period));
  QK_ASSIGN_OR_RETURN(every.offset, config.GetInt64InRangeOr(
                                        offset, 0, kMaxLayers, missing.offset));
  if (every.offset >= every.period) {
    return config.Error(absl::StrCat(offset, ": must be below ", period, " ",
                                     every.period, ", got ", every.offset));
  }
  return every;
}

absl::StatusOr<int> ReadRank(const JsonValue& config, int hidden) {
  const std::optional<JsonValue> rank = config.Find("mamba_dt_rank");
  const int automatic = (hidden + 15) / 16;
  if (!rank.has_value()) return automatic;
  if (rank->is_string()) {
    QK_ASSIGN_OR_RETURN(const absl::string_view name, rank->AsString());
    if (name == "auto") return automatic;
  }
  QK_ASSIGN_OR_RETURN(const int64_t given,
                      config.GetInt64InRange("mamba_dt_rank", 1, kMaxWidth));
  return static_cast<int>(given);
}

absl::StatusOr<MambaConfig> ReadMamba(const JsonValue& config, int hidden) {
  MambaConfig m;
  QK_ASSIGN_OR_RETURN(
      const int64_t expand,
      config.GetInt64InRangeOr("mamba_expand", 1, kMaxWidth / hidden, 2));
  m.inner_size = static_cast<int>(expand * hidden);
  QK_ASSIGN_OR_RETURN(const int64_t state,
                      config.GetInt64InRangeOr("mamba_d_state", 1, 4096, 16));
  m.state_size = static_cast<int>(state);
  QK_ASSIGN_OR_RETURN(const int64_t kernel,
                      config.GetInt64InRangeOr("mamba_d_conv", 1, 256, 4));
  m.conv_kernel = static_cast<int>(kernel);
  QK_ASSIGN_OR_RETURN(m.dt_rank, ReadRank(config, hidden));
  QK_ASSIGN_OR_RETURN(m.conv_bias, config.GetBoolOr("mamba_conv_bias", true));
  QK_ASSIGN_OR_RETURN(m.proj_bias, config.GetBoolOr("mamba_proj_bias", false));
  QK_ASSIGN_OR_RETURN(const bool norms,
                      config.GetBoolOr("mamba_inner_layernorms", true));
  if (!norms) {
    return Unimplemented(config, "mamba_inner_layernorms",
                         "false is not implemented");
  }
  return m;
}

struct Experts {
  int64_t count = 1, per_token = 1;
};

absl::StatusOr<Experts> ReadExperts(const JsonValue& config) {
  constexpr int64_t kMaxExperts = 256;
  Experts experts;
  QK_ASSIGN_OR_RETURN(
      const int64_t local,
      config.GetInt64InRangeOr("num_local_experts", 1, kMaxExperts, 16));
  QK_ASSIGN_OR_RETURN(experts.count, config.GetInt64InRangeOr(
                                         "num_experts", 1, kMaxExperts, local));
  if (config.Find("num_local_experts").has_value() && experts.count != local) {
    return config.Error(absl::StrCat("num_local_experts: ", local,
                                     ", but num_experts is ", experts.count));
  }
  QK_ASSIGN_OR_RETURN(
      experts.per_token,
      config.GetInt64InRangeOr("num_experts_per_tok", 1, experts.count,
                               std::min<int64_t>(2, experts.count)));
  return experts;
}

WeightNames JambaNames() {
  WeightNames names = LlamaNames();
  names.final_norm = "model.final_layernorm";
  names.mlp_norm = "pre_ff_layernorm";
  names.gate = "gate_proj";
  names.up = "up_proj";
  names.down = "down_proj";
  names.mlp = "feed_forward.";
  names.router = "feed_forward.router";
  names.experts = "feed_forward.experts.";
  names.mamba = "mamba.";
  return names;
}

}  // namespace

absl::StatusOr<Architecture> JambaFromConfig(const JsonValue& config,
                                             absl::string_view) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  if (config.Find("sliding_window").has_value()) {
    return Unimplemented(config, "sliding_window",
                         "not a field of this architecture");
  }
  DecoderFields fields;
  fields.default_context = 262144;
  fields.default_kv_heads = 8;
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(config, fields));
  if (model.layers[0].mlp.activation != Activation::kSilu) {
    return Unimplemented(config, "hidden_act",
                         "only silu is implemented for Mamba layers");
  }
  QK_ASSIGN_OR_RETURN(
      const Every attention,
      ReadEvery(config, "attn_layer_period", "attn_layer_offset", {8, 4}));
  QK_ASSIGN_OR_RETURN(
      const Every chosen,
      ReadEvery(config, "expert_layer_period", "expert_layer_offset", {2, 1}));
  QK_ASSIGN_OR_RETURN(const MambaConfig mamba,
                      ReadMamba(config, model.hidden_size));
  QK_ASSIGN_OR_RETURN(const Experts experts, ReadExperts(config));
  if (experts.count * model.num_layers() > 16384) {
    return config.Error(absl::StrCat("num_experts: ", experts.count, " of ",
                                     model.num_layers(),
                                     " layers are more than 16384"));
  }
  for (int i = 0; i < model.num_layers(); ++i) {
    LayerConfig& layer = model.layers[i];
    if (!attention.Has(i)) {
      layer.attention = {};
      layer.mamba = mamba;
    }
    if (chosen.Has(i)) {
      layer.mlp.num_experts = static_cast<int>(experts.count);
      layer.mlp.experts_per_token = static_cast<int>(experts.per_token);
    }
  }
  return MapWeights(std::move(model), JambaNames());
}

}  // namespace qk
