// Qwen 2 and 2.5, Qwen 3; Qwen2-VL.
#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/families.h"
#include "engine/architectures/gguf_config.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/hf_rope.h"
#include "engine/architectures/hf_vision.h"
#include "engine/architectures/weight_map.h"
#include "engine/base/check.h"

namespace qk {
namespace {

constexpr absl::string_view kFields[] = {"attention_bias",
                                         "head_dim",
                                         "hidden_act",
                                         "hidden_size",
                                         "intermediate_size",
                                         "layer_types",
                                         "max_position_embeddings",
                                         "max_window_layers",
                                         "num_attention_heads",
                                         "num_hidden_layers",
                                         "num_key_value_heads",
                                         "original_max_position_embeddings",
                                         "rms_norm_eps",
                                         "rope_parameters",
                                         "rope_scaling",
                                         "rope_theta",
                                         "sliding_window",
                                         "use_sliding_window"};

// Members of the outer part of Qwen2-VL: which ids stand for pictures.
constexpr absl::string_view kVisionFields[] = {
    "image_token_id", "text_config", "video_token_id", "vision_config",
    "vision_token_id", "vision_end_token_id", "vision_start_token_id",
    // vLLM reads this.
    "use_mrope"};

// Layers from max_window_layers on have a window, unless layer_types says
// otherwise.
absl::Status ReadWindow(const JsonValue& config, int64_t default_first,
                        ModelConfig* model) {
  QK_ASSIGN_OR_RETURN(const bool use,
                      config.GetBoolOr("use_sliding_window", false));
  QK_ASSIGN_OR_RETURN(const int64_t first,
                      config.GetInt64InRangeOr("max_window_layers", 0,
                                               kMaxContext, default_first));
  const bool has_window = use && !IsNull(config, "sliding_window");
  // The file has a number even if the window is not in use.
  QK_RETURN_IF_ERROR(config.GetInt64Or("sliding_window", 0).status());
  std::vector<bool> sliding(model->num_layers());
  for (int i = 0; i < model->num_layers(); ++i) {
    sliding[i] = has_window && i >= first;
  }
  QK_ASSIGN_OR_RETURN(sliding, ReadSlidingLayers(config, std::move(sliding)));
  if (!has_window) {
    for (size_t i = 0; i < sliding.size(); ++i) {
      if (!sliding[i]) continue;
      return config.Error(absl::StrCat("layer_types[", i,
                                       "]: 'sliding_attention', but there is "
                                       "no sliding_window in use"));
    }
    return absl::OkStatus();
  }
  QK_ASSIGN_OR_RETURN(
      const int64_t window,
      config.GetInt64InRangeOr("sliding_window", 1, kMaxContext, 4096));
  SetWindow(sliding, window, model);
  return absl::OkStatus();
}

WeightNames QwenNames() {
  WeightNames names = LlamaNames();
  names.q_norm = "self_attn.q_norm";
  names.k_norm = "self_attn.k_norm";
  return names;
}

}  // namespace

absl::StatusOr<Architecture> QwenFromConfig(const JsonValue& config,
                                            absl::string_view type) {
  const bool third = type == "qwen3";
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  DecoderFields fields;
  fields.default_context = 32768;
  fields.default_kv_heads = 32;
  if (third) fields.default_head_dim = 128;
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(config, fields));
  QK_ASSIGN_OR_RETURN(const bool bias,
                      config.GetBoolOr("attention_bias", !third));
  // Qwen 2 always has biases of Q, K and V and never one of O.
  if (!third && !bias) {
    return Unimplemented(config, "attention_bias",
                         "false is not implemented for this architecture");
  }
  for (LayerConfig& layer : model.layers) {
    layer.attention.qkv_bias = bias;
    layer.attention.o_bias = third && bias;
    layer.attention.qk_norm = third;
  }
  QK_RETURN_IF_ERROR(ReadWindow(config, 28, &model));
  QK_RETURN_IF_ERROR(SetRope(config, RopeFields{}, &model));
  return MapWeights(std::move(model), QwenNames());
}

// Releases 4.52 to 4.57 of transformers wrote the text part's fields twice. It
// reads those of "text_config": the others must agree.
absl::Status CheckOuterText(const JsonValue& config, const JsonValue& text) {
  return config.ForEachMember(
      [&](absl::string_view key, JsonValue value) -> absl::Status {
        if (value.is_null() || !absl::c_linear_search(kFields, key)) {
          return absl::OkStatus();
        }
        // A window that is not in use is null inside.
        if (key == "sliding_window" && IsNull(text, key)) {
          return absl::OkStatus();
        }
        const auto inner = text.Find(key);
        if (inner.has_value() && SameJson(*inner, value)) {
          return absl::OkStatus();
        }
        return value.Error(
            absl::StrCat(value.Describe(), ", but text_config says ",
                         inner.has_value() ? inner->Describe() : "nothing"));
      });
}

// Published files hold the text part's fields beside "vision_config";
// transformers 5 writes a "text_config".
absl::StatusOr<Architecture> QwenVlFromConfig(const JsonValue& config,
                                              absl::string_view) {
  const std::optional<JsonValue> inner = config.Find("text_config");
  const JsonValue text = inner.value_or(config);
  std::vector<absl::string_view> known(std::begin(kVisionFields),
                                       std::end(kVisionFields));
  known.insert(known.end(), std::begin(kFields), std::end(kFields));
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, known));
  if (inner.has_value()) {
    QK_RETURN_IF_ERROR(RefuseUnknownFields(text, known));
    QK_RETURN_IF_ERROR(CheckOuterText(config, text));
  }
  DecoderFields fields;
  fields.default_context = 32768;
  fields.default_kv_heads = 8;
  fields.default_norm_eps = 1e-5;
  QK_ASSIGN_OR_RETURN(ModelConfig model, ReadDecoder(text, fields));
  QK_ASSIGN_OR_RETURN(const bool outer_tied,
                      config.GetBoolOr("tie_word_embeddings", false));
  model.tied_lm_head |= outer_tied;
  for (LayerConfig& layer : model.layers) layer.attention.qkv_bias = true;
  QK_RETURN_IF_ERROR(ReadWindow(text, 80, &model));
  RopeFields rope;
  rope.default_theta = 1000000.0;
  rope.default_sections = {16, 24, 24};
  QK_RETURN_IF_ERROR(SetRope(text, rope, &model));
  Architecture a = MapWeights(std::move(model), QwenNames());
  a.other_prefixes = {{"model.", "model.language_model."},
                      {"model.", "language_model."},
                      {"model.", ""}};
  a.ignored = {".rotary_pos_emb.inv_freq"};
  QK_RETURN_IF_ERROR(AddVision(config, &a));
  return a;
}

absl::StatusOr<Architecture> QwenFromGguf(const GgufFile& file,
                                          absl::string_view type) {
  const GgufReader reader(file, type);
  QK_RETURN_IF_ERROR(reader.RefuseUnknownKeys({}));
  QK_ASSIGN_OR_RETURN(ModelConfig model, reader.ReadDecoder(NormKind::kRms));
  QK_ASSIGN_OR_RETURN(const RopeConfig rope, reader.ReadRope(model));
  for (LayerConfig& layer : model.layers) {
    layer.attention.rope = rope;
    layer.attention.qk_norm = type == "qwen3";
  }
  return MapWeights(std::move(model), GgufNames(file));
}

}  // namespace qk
