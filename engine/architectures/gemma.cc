// Gemma 2 and Gemma 3. Of a Gemma 3 checkpoint that takes pictures, only the
// language model is served.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/architectures/families.h"
#include "engine/architectures/gguf_config.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/hf_rope.h"
#include "engine/architectures/rope_scaling.h"
#include "engine/architectures/weight_map.h"
#include "engine/base/check.h"

namespace qk {
namespace {

constexpr absl::string_view kFields[] = {"_sliding_window_pattern",
                                         "attention_bias",
                                         "attn_logit_softcapping",
                                         "final_logit_softcapping",
                                         "head_dim",
                                         "hidden_act",
                                         "hidden_activation",
                                         "hidden_size",
                                         "intermediate_size",
                                         "layer_types",
                                         "max_position_embeddings",
                                         "num_attention_heads",
                                         "num_hidden_layers",
                                         "num_key_value_heads",
                                         "query_pre_attn_scalar",
                                         "rms_norm_eps",
                                         "rope_local_base_freq",
                                         "rope_parameters",
                                         "rope_scaling",
                                         "rope_theta",
                                         "sliding_window",
                                         "sliding_window_pattern",
                                         "sliding_window_size"};

// Members of the outer part of checkpoints that take pictures.
constexpr absl::string_view kOuterFields[] = {
    "boi_token_id",        "boi_token_index", "eoi_token_id",
    "eoi_token_index",     "image_token_id",  "image_token_index",
    "mm_tokens_per_image", "text_config",     "vision_config"};

// null switches the cap off; a missing field does not.
absl::StatusOr<float> ReadCap(const JsonValue& config, const char* field,
                              double missing) {
  if (IsNull(config, field)) return 0.0f;
  QK_ASSIGN_OR_RETURN(const double cap, ReadPositiveOr(config, field, missing));
  return static_cast<float>(cap);
}

// All layers but every `pattern`th.
std::vector<bool> Alternating(int layers, int64_t pattern) {
  std::vector<bool> sliding(layers);
  for (int i = 0; i < layers; ++i) sliding[i] = (i + 1) % pattern != 0;
  return sliding;
}

absl::StatusOr<std::vector<bool>> ReadSliding(const JsonValue& config,
                                              int64_t pattern, int layers) {
  for (const char* field :
       {"sliding_window_pattern", "_sliding_window_pattern"}) {
    QK_ASSIGN_OR_RETURN(
        pattern, config.GetInt64InRangeOr(field, 1, kMaxLayers, pattern));
  }
  return ReadSlidingLayers(config, Alternating(layers, pattern));
}

absl::Status ReadAttention(const JsonValue& config, bool third,
                           ModelConfig* model) {
  QK_ASSIGN_OR_RETURN(const bool bias,
                      config.GetBoolOr("attention_bias", false));
  QK_ASSIGN_OR_RETURN(const double scalar,
                      ReadPositiveOr(config, "query_pre_attn_scalar", 256));
  QK_ASSIGN_OR_RETURN(const float cap, ReadCap(config, "attn_logit_softcapping",
                                               third ? 0.0 : 50.0));
  if (third && cap != 0) {
    return Unimplemented(config, "attn_logit_softcapping",
                         "not used by this architecture's code");
  }
  for (LayerConfig& layer : model->layers) {
    layer.attention.qkv_bias = layer.attention.o_bias = bias;
    layer.attention.scale = static_cast<float>(1 / std::sqrt(scalar));
    layer.attention.softcap = cap;
    layer.attention.qk_norm = third;
  }
  return absl::OkStatus();
}

absl::Status ReadWindow(const JsonValue& config,
                        const std::vector<bool>& sliding, ModelConfig* model) {
  if (IsNull(config, "sliding_window")) {
    return config.Error("sliding_window: must be a number, got null");
  }
  QK_ASSIGN_OR_RETURN(
      const int64_t window,
      config.GetInt64InRangeOr("sliding_window", 1, kMaxContext, 4096));
  QK_ASSIGN_OR_RETURN(const int64_t again,
                      config.GetInt64Or("sliding_window_size", window));
  if (again != window) {
    return config.Error(absl::StrCat("sliding_window_size: ", again,
                                     ", but sliding_window is ", window));
  }
  SetWindow(sliding, window, model);
  return absl::OkStatus();
}

// Gemma 3 has two RoPEs: one for the layers without a window, one for the
// others.
absl::Status ReadTwoRopes(const JsonValue& config,
                          const std::vector<bool>& sliding,
                          ModelConfig* model) {
  RopeFields global, local;
  global.default_theta = 1000000.0;
  global.layer_type = "full_attention";
  local.theta = "rope_local_base_freq";
  local.layer_type = "sliding_attention";
  local.reads_scaling = false;
  const int head_dim = model->layers[0].attention.head_dim;
  QK_ASSIGN_OR_RETURN(const RopeConfig far, ReadRope(config, global, head_dim,
                                                     model->context_length));
  QK_ASSIGN_OR_RETURN(const RopeConfig near,
                      ReadRope(config, local, head_dim, model->context_length));
  if (const auto both = config.Find("rope_parameters"); both.has_value()) {
    QK_RETURN_IF_ERROR(
        RefuseUnknownFields(*both, {"full_attention", "sliding_attention"}));
  }
  for (size_t i = 0; i < sliding.size(); ++i) {
    model->layers[i].attention.rope = sliding[i] ? near : far;
  }
  return absl::OkStatus();
}

WeightNames GemmaNames() {
  WeightNames names = LlamaNames();
  names.post_attention_norm = "post_attention_layernorm";
  names.mlp_norm = "pre_feedforward_layernorm";
  names.post_mlp_norm = "post_feedforward_layernorm";
  names.q_norm = "self_attn.q_norm";
  names.k_norm = "self_attn.k_norm";
  names.plus = 1.0f;
  return names;
}

void SetStructure(ModelConfig* model) {
  model->norm_placement = NormPlacement::kSandwich;
  model->embedding_scale =
      static_cast<float>(std::sqrt(static_cast<double>(model->hidden_size)));
}

absl::StatusOr<ModelConfig> ReadText(const JsonValue& config, bool third) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  DecoderFields fields;
  fields.activation = "hidden_activation";
  fields.default_activation = "gelu_pytorch_tanh";
  fields.default_vocab = third ? 262208 : 256000;
  fields.default_context = third ? 131072 : 8192;
  fields.default_heads = 8;
  fields.default_head_dim = 256;
  fields.default_kv_heads = 4;
  fields.default_tied = true;
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(config, fields));
  SetStructure(&model);
  // transformers reads hidden_activation only.
  QK_ASSIGN_OR_RETURN(
      const Activation other,
      ReadActivation(config, "hidden_act", "gelu_pytorch_tanh"));
  if (config.Find("hidden_act").has_value() &&
      other != model.layers[0].mlp.activation) {
    return config.Error("hidden_act: differs from hidden_activation");
  }
  QK_RETURN_IF_ERROR(ReadAttention(config, third, &model));
  QK_ASSIGN_OR_RETURN(
      model.logit_softcap,
      ReadCap(config, "final_logit_softcapping", third ? 0.0 : 30.0));
  QK_ASSIGN_OR_RETURN(const std::vector<bool> sliding,
                      ReadSliding(config, third ? 6 : 2, model.num_layers()));
  QK_RETURN_IF_ERROR(ReadWindow(config, sliding, &model));
  if (third) {
    QK_RETURN_IF_ERROR(ReadTwoRopes(config, sliding, &model));
  } else if (config.Find("rope_local_base_freq").has_value()) {
    return Unimplemented(config, "rope_local_base_freq",
                         "not a field of this architecture");
  } else {
    QK_RETURN_IF_ERROR(SetRope(config, RopeFields{}, &model));
  }
  return model;
}

absl::Status CheckInnerText(const JsonValue& text) {
  QK_ASSIGN_OR_RETURN(const absl::string_view type,
                      text.GetStringOr("model_type", "gemma3_text"));
  if (type != "gemma3_text") {
    return Unimplemented(text, "model_type",
                         absl::StrCat(text.Get("model_type")->Describe(),
                                      " is not implemented here "
                                      "(implemented: gemma3_text)"));
  }
  for (const char* field :
       {"auto_map", "final_logit_softcapping", "quantization_config"}) {
    if (!text.Find(field).has_value()) continue;
    return Unimplemented(text, field,
                         "not used here by this architecture's code");
  }
  return absl::OkStatus();
}

// Reads the language model of a checkpoint that takes pictures.
absl::StatusOr<Architecture> FromOuter(const JsonValue& config) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kOuterFields));
  QK_ASSIGN_OR_RETURN(const JsonValue text, config.GetObject("text_config"));
  if (config.Find("vision_config").has_value()) {
    QK_RETURN_IF_ERROR(config.GetObject("vision_config").status());
  }
  QK_RETURN_IF_ERROR(CheckInnerText(text));
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadText(text, /*third=*/true));
  // lm_head is untied if either part says so: transformers 5 goes by the outer
  // field and writes true into the inner one, transformers 4 went by the inner
  // field alone.
  QK_ASSIGN_OR_RETURN(const bool tied,
                      config.GetBoolOr("tie_word_embeddings", true));
  model.tied_lm_head &= tied;
  Architecture a = MapWeights(std::move(model), GemmaNames());
  a.other_prefixes = {{"", "language_model."},
                      {"model.", "model.language_model."},
                      {"model.", "language_model."}};
  if (a.config.tied_lm_head) a.ignored = {"language_model.lm_head.weight"};
  for (const char* root : {"", "model."}) {
    for (const char* part : {"vision_tower.", "multi_modal_projector."}) {
      a.ignored_prefixes.push_back(absl::StrCat(root, part));
    }
  }
  return a;
}

}  // namespace

absl::StatusOr<Architecture> GemmaFromConfig(const JsonValue& config,
                                             absl::string_view type) {
  if (type == "gemma3") return FromOuter(config);
  QK_ASSIGN_OR_RETURN(ModelConfig model,
                      ReadText(config, type == "gemma3_text"));
  return MapWeights(std::move(model), GemmaNames());
}

namespace {

// The pattern of windows: a number, or one flag per layer.
absl::StatusOr<std::vector<bool>> ReadGgufSliding(const GgufReader& reader,
                                                  int64_t pattern, int layers) {
  const char* key = "attention.sliding_window_pattern";
  if (reader.file().IsArray(reader.Key(key))) {
    return absl::UnimplementedError(
        absl::StrCat(reader.Key(key), ": an array is not implemented"));
  }
  QK_ASSIGN_OR_RETURN(
      pattern, reader.GetSizeOr(key, kMaxLayers, static_cast<int>(pattern)));
  return Alternating(layers, pattern);
}

// The files do not hold query_pre_attn_scalar. It equals head_dim except in the
// 27B models, where it is hidden / heads; llama.cpp tells them apart by their
// depth too.
void SetGgufScale(int layers_of_27b, ModelConfig* model) {
  if (model->num_layers() != layers_of_27b) return;
  for (LayerConfig& layer : model->layers) {
    const int scalar = model->hidden_size / layer.attention.num_heads;
    layer.attention.scale = static_cast<float>(1 / std::sqrt(scalar));
  }
}

absl::Status ReadGgufCaps(const GgufReader& reader, ModelConfig* model) {
  QK_ASSIGN_OR_RETURN(const double attention,
                      reader.GetPositiveOr("attn_logit_softcapping", 50.0));
  QK_ASSIGN_OR_RETURN(const double final,
                      reader.GetPositiveOr("final_logit_softcapping", 30.0));
  for (LayerConfig& layer : model->layers) {
    layer.attention.softcap = static_cast<float>(attention);
  }
  model->logit_softcap = static_cast<float>(final);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Architecture> GemmaFromGguf(const GgufFile& file,
                                           absl::string_view type) {
  const bool third = type == "gemma3";
  const GgufReader reader(file, type);
  QK_RETURN_IF_ERROR(reader.RefuseUnknownKeys(
      {"attention.sliding_window", "attention.sliding_window_pattern",
       "attn_logit_softcapping", "final_logit_softcapping",
       "rope.freq_base_swa"}));
  QK_ASSIGN_OR_RETURN(ModelConfig model, reader.ReadDecoder(NormKind::kRms));
  SetStructure(&model);
  SetGgufScale(third ? 62 : 46, &model);
  if (!third) {
    QK_RETURN_IF_ERROR(ReadGgufCaps(reader, &model));
  } else if (reader.Has("final_logit_softcapping")) {
    QK_ASSIGN_OR_RETURN(const double cap,
                        reader.GetPositiveOr("final_logit_softcapping", 1));
    model.logit_softcap = static_cast<float>(cap);
  }
  QK_ASSIGN_OR_RETURN(const RopeConfig far, reader.ReadRope(model));
  QK_ASSIGN_OR_RETURN(
      const double near_theta,
      reader.GetPositiveOr("rope.freq_base_swa", third ? 10000.0 : far.theta));
  // The scaling belongs to the layers without a window.
  const RopeConfig near = third ? PlainRope(near_theta, far.rotary_dims) : far;
  std::vector<bool> sliding(model.num_layers());
  if (!third || reader.Has("attention.sliding_window")) {
    QK_ASSIGN_OR_RETURN(
        sliding, ReadGgufSliding(reader, third ? 6 : 2, model.num_layers()));
    QK_ASSIGN_OR_RETURN(
        const int window,
        reader.GetSizeOr("attention.sliding_window", kMaxContext, 4096));
    SetWindow(sliding, window, &model);
  }
  for (int i = 0; i < model.num_layers(); ++i) {
    AttentionConfig& attention = model.layers[i].attention;
    attention.rope = sliding[i] ? near : far;
    attention.qk_norm = third;
  }
  for (LayerConfig& layer : model.layers) {
    layer.mlp.activation = Activation::kGeluTanh;
  }
  // The converter has added 1 to the weights of norms.
  Architecture a = MapWeights(std::move(model), GgufNames(file));
  if (third && !reader.Has("attention.sliding_window")) {
    reader.WarnOfNoWindow(&a);
  }
  return a;
}

}  // namespace qk
