// GPT-NeoX and Pythia: part of each head rotates, and attention and MLP are
// parallel.
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
    "attention_bias",      "hidden_act",        "hidden_size",
    "intermediate_size",   "layer_norm_eps",    "max_position_embeddings",
    "num_attention_heads", "num_hidden_layers", "partial_rotary_factor",
    "rope_parameters",     "rope_scaling",      "rope_theta",
    "rotary_emb_base",     "rotary_pct",        "use_parallel_residual"};

void SetStructure(ModelConfig* model) {
  model->norm = NormKind::kLayer;
  for (LayerConfig& layer : model->layers) {
    layer.mlp.gated = false;
    layer.mlp.bias = true;
  }
}

// Some releases of transformers wrote a number under a second name.
absl::Status CheckSecondName(const JsonValue& config, const char* second,
                             const char* first, double value) {
  QK_ASSIGN_OR_RETURN(const double other, config.GetDoubleOr(second, value));
  if (other == value) return absl::OkStatus();
  return config.Error(
      absl::StrCat(second, ": ", other, ", but ", first, " is ", value));
}

absl::Status ReadRopes(const JsonValue& config, ModelConfig* model) {
  RopeFields fields;
  fields.theta = "rotary_emb_base";
  fields.rotary_share = "rotary_pct";
  fields.default_rotary_share = 0.25;
  QK_RETURN_IF_ERROR(SetRope(config, fields, model));
  QK_RETURN_IF_ERROR(CheckSecondName(config, "rope_theta", fields.theta,
                                     model->layers[0].attention.rope.theta));
  QK_ASSIGN_OR_RETURN(
      const double share,
      config.GetDoubleOr(fields.rotary_share, fields.default_rotary_share));
  if (config.Find("rope_parameters").has_value()) return absl::OkStatus();
  return CheckSecondName(config, "partial_rotary_factor", fields.rotary_share,
                         share);
}

}  // namespace

absl::StatusOr<Architecture> GptNeoxFromConfig(const JsonValue& config,
                                               absl::string_view) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  DecoderFields fields;
  fields.kv_heads = nullptr;
  fields.head_dim = nullptr;
  fields.norm_eps = "layer_norm_eps";
  fields.default_norm_eps = 1e-5;
  fields.default_activation = "gelu";
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(config, fields));
  SetStructure(&model);
  QK_ASSIGN_OR_RETURN(model.parallel_residual,
                      config.GetBoolOr("use_parallel_residual", true));
  QK_ASSIGN_OR_RETURN(const bool bias,
                      config.GetBoolOr("attention_bias", true));
  for (LayerConfig& layer : model.layers) {
    layer.attention.qkv_bias = layer.attention.o_bias = bias;
  }
  QK_RETURN_IF_ERROR(ReadRopes(config, &model));
  WeightNames names;
  names.root = "gpt_neox.";
  names.embedding = "gpt_neox.embed_in";
  names.final_norm = "gpt_neox.final_layer_norm";
  names.lm_head = "embed_out";
  names.layer = "gpt_neox.layers.";
  names.attention_norm = "input_layernorm";
  names.mlp_norm = "post_attention_layernorm";
  names.qkv = "attention.query_key_value";
  names.qkv_per_head = true;
  names.o = "attention.dense";
  names.up = "mlp.dense_h_to_4h";
  names.down = "mlp.dense_4h_to_h";
  Architecture a = MapWeights(std::move(model), names);
  a.ignored = {".attention.bias"};
  a.other_prefixes.emplace_back("embed_out.", "lm_head.");
  return a;
}

absl::StatusOr<Architecture> GptNeoxFromGguf(const GgufFile& file,
                                             absl::string_view type) {
  const GgufReader reader(file, type);
  QK_RETURN_IF_ERROR(reader.RefuseUnknownKeys({"use_parallel_residual"}));
  QK_ASSIGN_OR_RETURN(ModelConfig model, reader.ReadDecoder(NormKind::kLayer));
  SetStructure(&model);
  QK_ASSIGN_OR_RETURN(model.parallel_residual,
                      file.GetBool(reader.Key("use_parallel_residual")));
  QK_ASSIGN_OR_RETURN(const RopeConfig rope, reader.ReadRope(model));
  for (LayerConfig& layer : model.layers) {
    layer.attention.rope = rope;
    // The files do not say which form; llama.cpp uses the tanh form for all.
    layer.mlp.activation = Activation::kGeluTanh;
  }
  // The converter has put Q, K and V of all heads one after another.
  return MapWeights(std::move(model), GgufNames(file));
}

}  // namespace qk
