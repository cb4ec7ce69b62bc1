// OPT and Galactica: learned positions, from row 2 on.
#include "engine/architectures/families.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/weight_map.h"
#include "engine/base/check.h"

namespace qk {
namespace {

constexpr absl::string_view kFields[] = {
    "_remove_final_layer_norm", "activation_function", "do_layer_norm_before",
    "enable_bias", "ffn_dim", "hidden_size", "layer_norm_elementwise_affine",
    "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
    "word_embed_proj_dim",
    // Dropouts act in training only.
    "activation_dropout", "dropout", "layerdrop"};

WeightNames OptNames() {
  WeightNames names;
  names.root = "model.";
  names.embedding = "model.decoder.embed_tokens";
  names.positions = "model.decoder.embed_positions";
  names.project_in = "model.decoder.project_in";
  names.project_out = "model.decoder.project_out";
  names.final_norm = "model.decoder.final_layer_norm";
  names.lm_head = "lm_head";
  names.layer = "model.decoder.layers.";
  names.attention_norm = "self_attn_layer_norm";
  names.mlp_norm = "final_layer_norm";
  names.q = "self_attn.q_proj";
  names.k = "self_attn.k_proj";
  names.v = "self_attn.v_proj";
  names.o = "self_attn.out_proj";
  names.up = "fc1";
  names.down = "fc2";
  return names;
}

}  // namespace

absl::StatusOr<Architecture> OptFromConfig(const JsonValue& config,
                                           absl::string_view) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  DecoderFields fields;
  fields.intermediate = "ffn_dim";
  fields.kv_heads = nullptr;
  fields.head_dim = nullptr;
  fields.norm_eps = nullptr;
  fields.default_norm_eps = 1e-5;
  fields.activation = "activation_function";
  fields.default_activation = "relu";
  fields.default_tied = true;
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(config, fields));
  model.norm = NormKind::kLayer;
  model.position_offset = 2;
  model.position_rows = model.context_length + model.position_offset;
  QK_ASSIGN_OR_RETURN(const int64_t width,
                      config.GetInt64InRangeOr("word_embed_proj_dim", 1,
                                               kMaxWidth, model.hidden_size));
  model.embedding_size = static_cast<int>(width);
  QK_ASSIGN_OR_RETURN(const bool before,
                      config.GetBoolOr("do_layer_norm_before", true));
  QK_ASSIGN_OR_RETURN(const bool removed,
                      config.GetBoolOr("_remove_final_layer_norm", false));
  model.norm_placement = before ? NormPlacement::kPre : NormPlacement::kPost;
  model.final_norm = before && !removed;
  QK_ASSIGN_OR_RETURN(const bool bias, config.GetBoolOr("enable_bias", true));
  for (LayerConfig& layer : model.layers) {
    layer.attention.qkv_bias = layer.attention.o_bias = bias;
    layer.mlp.gated = false;
    layer.mlp.bias = bias;
  }
  QK_ASSIGN_OR_RETURN(const bool affine,
                      config.GetBoolOr("layer_norm_elementwise_affine", true));
  if (!affine) {
    return Unimplemented(config, "layer_norm_elementwise_affine",
                         "false is not implemented");
  }
  return MapWeights(std::move(model), OptNames());
}

}  // namespace qk
