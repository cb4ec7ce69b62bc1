// GPT-2: learned positions, layer norms, and one fused, transposed projection.
#include "engine/architectures/families.h"
#include "engine/architectures/gguf_config.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/weight_map.h"
#include "engine/base/check.h"

namespace qk {
namespace {

constexpr absl::string_view kFields[] = {
    "activation_function", "layer_norm_epsilon", "n_embd", "n_head", "n_inner",
    "n_layer", "n_positions", "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    // Only changes the order of sums.
    "reorder_and_upcast_attn"};

void SetStructure(ModelConfig* model) {
  model->norm = NormKind::kLayer;
  model->position_rows = model->context_length;
  for (LayerConfig& layer : model->layers) {
    layer.attention.qkv_bias = layer.attention.o_bias = true;
    layer.mlp.gated = false;
    layer.mlp.bias = true;
  }
}

}  // namespace

absl::StatusOr<Architecture> Gpt2FromConfig(const JsonValue& config,
                                            absl::string_view) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  DecoderFields fields;
  fields.layers = "n_layer";
  fields.hidden = "n_embd";
  fields.intermediate = "n_inner";
  fields.default_intermediate_ratio = 4;
  fields.context = "n_positions";
  fields.default_context = 1024;
  fields.heads = "n_head";
  fields.kv_heads = nullptr;
  fields.head_dim = nullptr;
  fields.norm_eps = "layer_norm_epsilon";
  fields.default_norm_eps = 1e-5;
  fields.activation = "activation_function";
  fields.default_activation = "gelu_new";
  fields.default_tied = true;
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(config, fields));
  SetStructure(&model);
  QK_ASSIGN_OR_RETURN(const bool scaled,
                      config.GetBoolOr("scale_attn_weights", true));
  QK_ASSIGN_OR_RETURN(
      const bool by_layer,
      config.GetBoolOr("scale_attn_by_inverse_layer_idx", false));
  for (int i = 0; i < model.num_layers(); ++i) {
    float& scale = model.layers[i].attention.scale;
    if (!scaled) scale = 1.0f;
    if (by_layer) scale /= static_cast<float>(i + 1);
  }
  WeightNames names = Gpt2Names();
  names.qkv = "attn.c_attn";
  names.o = "attn.c_proj";
  names.transposed = true;
  Architecture a = MapWeights(std::move(model), names);
  // Masks that older releases stored.
  a.ignored = {".attn.bias"};
  return a;
}

absl::StatusOr<Architecture> Gpt2FromGguf(const GgufFile& file,
                                          absl::string_view type) {
  const GgufReader reader(file, type);
  QK_RETURN_IF_ERROR(reader.RefuseUnknownKeys({}));
  QK_ASSIGN_OR_RETURN(ModelConfig model, reader.ReadDecoder(NormKind::kLayer));
  SetStructure(&model);
  for (LayerConfig& layer : model.layers) {
    layer.mlp.activation = Activation::kGeluTanh;
  }
  // The converter has transposed what was (in, out).
  return MapWeights(std::move(model), GgufNames(file));
}

}  // namespace qk
