#include "engine/architectures/hf_vision.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/weight_map.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

constexpr int64_t kMaxPatchSide = 1024;
constexpr int64_t kMaxChannels = 16;
constexpr int64_t kMaxMerge = 16;
constexpr int64_t kMaxRatio = 64;
constexpr double kNormEps = 1e-6;  // no configuration has another value

constexpr absl::string_view kFields[] = {"depth",
                                         "embed_dim",
                                         "hidden_act",
                                         "hidden_size",
                                         "in_channels",
                                         "in_chans",
                                         "mlp_ratio",
                                         "num_heads",
                                         "patch_size",
                                         "rope_parameters",
                                         "spatial_merge_size",
                                         "spatial_patch_size",
                                         "temporal_patch_size"};

absl::StatusOr<int> Size(const JsonValue& config, const char* key, int64_t max,
                         int64_t missing) {
  QK_ASSIGN_OR_RETURN(const int64_t size,
                      config.GetInt64InRangeOr(key, 1, max, missing));
  return static_cast<int>(size);
}

// Fields that published files have beside the ones that are read.
absl::Status RequireSame(const JsonValue& config, const char* key,
                         int64_t value) {
  QK_ASSIGN_OR_RETURN(const int64_t got, config.GetInt64Or(key, value));
  if (got == value) return absl::OkStatus();
  return Unimplemented(config, key,
                       absl::StrCat("expected ", value, ", got ", got));
}

// "axial": half of the pairs rotate with a patch's row, half with its column.
absl::StatusOr<RopeConfig> ReadAxialRope(const JsonValue& config,
                                         int head_dim) {
  double theta = 10000.0;
  const std::optional<JsonValue> object = config.Find("rope_parameters");
  if (object.has_value()) {
    QK_RETURN_IF_ERROR(config.GetObject("rope_parameters").status());
    constexpr absl::string_view kKnown[] = {"rope_type", "rope_theta"};
    QK_RETURN_IF_ERROR(RefuseUnknownFields(*object, kKnown));
    QK_ASSIGN_OR_RETURN(const absl::string_view type,
                        object->GetStringOr("rope_type", "axial"));
    if (type != "axial") {
      return Unimplemented(
          *object, "rope_type",
          absl::StrCat("'", Excerpt(type),
                       "' is not implemented (implemented: axial)"));
    }
    QK_ASSIGN_OR_RETURN(theta, ReadPositiveOr(*object, "rope_theta", theta));
  }
  RopeConfig rope;
  rope.theta = theta;
  rope.rotary_dims = head_dim;
  rope.frequencies = BaseFrequencies(theta, head_dim / 2);
  const std::vector<double> same = rope.frequencies;
  rope.frequencies.insert(rope.frequencies.end(), same.begin(), same.end());
  rope.sections = {head_dim / 4, head_dim / 4};
  return rope;
}

absl::Status ReadAttention(const JsonValue& config, VisionConfig* vision) {
  AttentionConfig& a = vision->attention;
  QK_ASSIGN_OR_RETURN(a.num_heads, Size(config, "num_heads", kMaxWidth, 16));
  a.num_kv_heads = a.num_heads;
  a.head_dim = vision->hidden_size / a.num_heads;
  if (vision->hidden_size % a.num_heads != 0 || a.head_dim % 4 != 0 ||
      a.head_dim > kMaxHeadDim) {
    return config.Error(absl::StrCat(
        "num_heads: ", a.num_heads, " heads of embed_dim ", vision->hidden_size,
        " are not of 4, 8, .. ", kMaxHeadDim, " dims"));
  }
  a.scale = static_cast<float>(1.0 / std::sqrt(double{1} * a.head_dim));
  a.qkv_bias = a.o_bias = true;
  a.causal = false;
  QK_ASSIGN_OR_RETURN(a.rope, ReadAxialRope(config, a.head_dim));
  return absl::OkStatus();
}

absl::Status ReadPatches(const JsonValue& config, VisionConfig* vision) {
  QK_ASSIGN_OR_RETURN(vision->channels,
                      Size(config, "in_channels", kMaxChannels, 3));
  QK_RETURN_IF_ERROR(RequireSame(config, "in_chans", vision->channels));
  QK_ASSIGN_OR_RETURN(vision->patch_size,
                      Size(config, "patch_size", kMaxPatchSide, 14));
  QK_RETURN_IF_ERROR(
      RequireSame(config, "spatial_patch_size", vision->patch_size));
  QK_ASSIGN_OR_RETURN(vision->temporal_patch_size,
                      Size(config, "temporal_patch_size", kMaxChannels, 2));
  QK_ASSIGN_OR_RETURN(vision->merge_size,
                      Size(config, "spatial_merge_size", kMaxMerge, 2));
  return absl::OkStatus();
}

absl::StatusOr<VisionConfig> ReadVision(const JsonValue& config, int width) {
  QK_RETURN_IF_ERROR(RefuseUnknownFields(config, kFields));
  VisionConfig vision;
  QK_ASSIGN_OR_RETURN(vision.num_layers, Size(config, "depth", kMaxLayers, 32));
  QK_ASSIGN_OR_RETURN(vision.hidden_size,
                      Size(config, "embed_dim", kMaxWidth, 1280));
  QK_RETURN_IF_ERROR(ReadPatches(config, &vision));
  vision.norm_eps = static_cast<float>(kNormEps);
  QK_RETURN_IF_ERROR(ReadAttention(config, &vision));
  QK_ASSIGN_OR_RETURN(const int ratio, Size(config, "mlp_ratio", kMaxRatio, 4));
  QK_ASSIGN_OR_RETURN(const int out,
                      Size(config, "hidden_size", kMaxWidth, 3584));
  if (out != width) {
    return config.Error(absl::StrCat("hidden_size: expected the text's ", width,
                                     ", got ", out));
  }
  vision.mlp.gated = vision.merger.gated = false;
  vision.mlp.bias = vision.merger.bias = true;
  vision.mlp.intermediate_size = ratio * vision.hidden_size;
  QK_ASSIGN_OR_RETURN(vision.mlp.activation,
                      ReadActivation(config, "hidden_act", "quick_gelu"));
  vision.merger.intermediate_size = vision.merged_size();
  vision.merger.activation = Activation::kGelu;
  return vision;
}

WeightRef Ref(const char* name, std::vector<int64_t> shape) {
  WeightRef ref;
  ref.name = name;
  ref.shape = std::move(shape);
  return ref;
}

VisionWeightRefs MapVision(const VisionConfig& vision, int width) {
  WeightNames names;
  names.layer = "visual.blocks.";
  names.attention_norm = "norm1";
  names.mlp_norm = "norm2";
  names.qkv = "attn.qkv";
  names.o = "attn.proj";
  names.up = "mlp.fc1";
  names.down = "mlp.fc2";
  ModelConfig tower;
  tower.hidden_size = vision.hidden_size;
  tower.norm = NormKind::kLayer;
  tower.layers.assign(vision.num_layers, {vision.attention, {}, vision.mlp});
  VisionWeightRefs refs;
  for (int i = 0; i < vision.num_layers; ++i) {
    refs.layers.push_back(MapLayer(tower, names, i));
  }
  const int64_t merged = vision.merged_size(), hidden = vision.hidden_size;
  refs.patch_embed = Ref("visual.patch_embed.proj.weight",
                         {hidden, vision.channels, vision.temporal_patch_size,
                          vision.patch_size, vision.patch_size});
  refs.merger_norm = {Ref("visual.merger.ln_q.weight", {hidden}),
                      Ref("visual.merger.ln_q.bias", {hidden})};
  refs.merger.up_proj = Ref("visual.merger.mlp.0.weight", {merged, merged});
  refs.merger.up_bias = Ref("visual.merger.mlp.0.bias", {merged});
  refs.merger.down_proj = Ref("visual.merger.mlp.2.weight", {width, merged});
  refs.merger.down_bias = Ref("visual.merger.mlp.2.bias", {width});
  return refs;
}

}  // namespace

absl::Status AddVision(const JsonValue& config, Architecture* architecture) {
  if (!config.Find("vision_config").has_value()) return absl::OkStatus();
  QK_ASSIGN_OR_RETURN(const JsonValue object,
                      config.GetObject("vision_config"));
  ModelConfig& model = architecture->config;
  QK_ASSIGN_OR_RETURN(model.vision, ReadVision(object, model.hidden_size));
  QK_ASSIGN_OR_RETURN(
      const int64_t token,
      config.GetInt64InRangeOr("image_token_id", 0, kMaxVocab, 151655));
  if (token >= model.vocab_size) {
    return config.Error(absl::StrCat("image_token_id: ", token,
                                     ", but vocab_size is ", model.vocab_size));
  }
  model.vision.image_token = static_cast<int32_t>(token);
  architecture->vision = MapVision(model.vision, model.hidden_size);
  // transformers 5 writes the names of the text and the tower under "model.".
  architecture->other_prefixes.emplace_back("visual.", "model.visual.");
  return absl::OkStatus();
}

}  // namespace qk
