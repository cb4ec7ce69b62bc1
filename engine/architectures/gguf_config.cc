#include "engine/architectures/gguf_config.h"

#include <cmath>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/hf_config.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

constexpr absl::string_view kCommonKeys[] = {
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon",
    "attention.value_length", "block_count", "context_length",
    "embedding_length", "expert_count", "expert_used_count",
    "feed_forward_length", "rope.dimension_count", "rope.freq_base",
    "rope.scale_linear", "rope.scaling.attn_factor", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.type",
    "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_ext_factor",
    // No number depends on these.
    "rope.scaling.finetuned", "tensor_data_layout", "vocab_size"};

bool HasTensor(const GgufFile& file, absl::string_view name) {
  return file.Find(name) != nullptr;
}

}  // namespace

GgufReader::GgufReader(const GgufFile& file, absl::string_view type)
    : file_(file), prefix_(absl::StrCat(type, ".")) {}

std::string GgufReader::Key(absl::string_view rest) const {
  return absl::StrCat(prefix_, rest);
}

bool GgufReader::Has(absl::string_view rest) const {
  return file_.Has(Key(rest));
}

absl::StatusOr<int> GgufReader::GetSize(absl::string_view rest,
                                        int64_t max) const {
  QK_ASSIGN_OR_RETURN(const int64_t size,
                      file_.GetInt64InRange(Key(rest), 1, max));
  return static_cast<int>(size);
}

absl::StatusOr<int> GgufReader::GetSizeOr(absl::string_view rest, int64_t max,
                                          int missing) const {
  if (!Has(rest)) return missing;
  return GetSize(rest, max);
}

absl::StatusOr<double> GgufReader::GetPositiveOr(absl::string_view rest,
                                                 double missing) const {
  QK_ASSIGN_OR_RETURN(const double value,
                      file_.GetDoubleOr(Key(rest), missing));
  if (!(value > 0)) {
    return file_.Error(Key(rest), absl::StrCat("must be > 0, got ", value));
  }
  return value;
}

absl::Status GgufReader::RefuseUnknownKeys(
    absl::Span<const absl::string_view> known) const {
  for (absl::string_view key : file_.keys()) {
    if (!absl::StartsWith(key, prefix_)) continue;
    const absl::string_view rest = key.substr(prefix_.size());
    if (absl::c_linear_search(kCommonKeys, rest) ||
        absl::c_linear_search(known, rest)) {
      continue;
    }
    return absl::UnimplementedError(
        file_.Error(key, "a key that is not implemented").message());
  }
  return absl::OkStatus();
}

void GgufReader::WarnOfNoWindow(Architecture* architecture) const {
  architecture->warnings.push_back(
      absl::StrCat("the file has no ", Key("attention.sliding_window"),
                   ": attention is global in every layer, where the published "
                   "models of this "
                   "family have a window in some"));
}

absl::StatusOr<AttentionConfig> GgufReader::ReadHeads(int hidden) const {
  AttentionConfig a;
  QK_ASSIGN_OR_RETURN(a.num_heads, GetSize("attention.head_count", kMaxWidth));
  QK_ASSIGN_OR_RETURN(a.num_kv_heads, GetSizeOr("attention.head_count_kv",
                                                kMaxWidth, a.num_heads));
  if (a.num_heads % a.num_kv_heads != 0) {
    return file_.Error(
        Key("attention.head_count_kv"),
        absl::StrCat(a.num_kv_heads, " does not divide head_count ",
                     a.num_heads));
  }
  if (!Has("attention.key_length") && hidden % a.num_heads != 0) {
    return file_.Error(
        Key("embedding_length"),
        absl::StrCat(hidden, " is not a multiple of head_count ", a.num_heads));
  }
  QK_ASSIGN_OR_RETURN(
      const int64_t head_dim,
      file_.GetInt64InRangeOr(Key("attention.key_length"), 1, kMaxHeadDim,
                              hidden / a.num_heads));
  QK_ASSIGN_OR_RETURN(const int value_length,
                      GetSizeOr("attention.value_length", kMaxHeadDim,
                                static_cast<int>(head_dim)));
  if (head_dim > kMaxHeadDim || value_length != head_dim) {
    return file_.Error(
        Key("attention.key_length"),
        absl::StrCat("must be at most ", kMaxHeadDim,
                     " and equal to value_length, got ", head_dim));
  }
  a.head_dim = static_cast<int>(head_dim);
  a.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  a.qkv_bias = HasTensor(file_, "blk.0.attn_q.bias") ||
               HasTensor(file_, "blk.0.attn_qkv.bias");
  a.o_bias = HasTensor(file_, "blk.0.attn_output.bias");
  return a;
}

absl::StatusOr<ModelConfig> GgufReader::ReadDecoder(NormKind norm) const {
  ModelConfig model;
  QK_ASSIGN_OR_RETURN(const int layers, GetSize("block_count", kMaxLayers));
  QK_ASSIGN_OR_RETURN(model.hidden_size,
                      GetSize("embedding_length", kMaxWidth));
  model.embedding_size = model.hidden_size;
  QK_ASSIGN_OR_RETURN(model.context_length,
                      GetSize("context_length", kMaxContext));
  LayerConfig layer;
  QK_ASSIGN_OR_RETURN(layer.attention, ReadHeads(model.hidden_size));
  QK_ASSIGN_OR_RETURN(layer.mlp.intermediate_size,
                      GetSize("feed_forward_length", kMaxWidth));
  layer.mlp.bias = HasTensor(file_, "blk.0.ffn_down.bias");
  model.layers.assign(layers, layer);
  model.norm = norm;
  const std::string eps =
      Key(norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon"
                                 : "attention.layer_norm_epsilon");
  QK_ASSIGN_OR_RETURN(const double norm_eps, file_.GetDouble(eps));
  if (!(norm_eps >= 0 && norm_eps <= 1)) {
    return file_.Error(eps, absl::StrCat("must be in [0, 1], got ", norm_eps));
  }
  model.norm_eps = static_cast<float>(norm_eps);
  QK_ASSIGN_OR_RETURN(const int64_t experts,
                      file_.GetInt64Or(Key("expert_count"), 0));
  if (experts != 0) {
    return absl::UnimplementedError(absl::StrCat(
        Key("expert_count"), ": ", experts, " is not implemented"));
  }
  const TensorInfo* embedding = file_.Find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2 ||
      embedding->shape[0] < 1 || embedding->shape[0] > kMaxVocab) {
    return absl::InvalidArgumentError(absl::StrCat(
        "missing 'token_embd.weight' of 1 to ", kMaxVocab, " rows"));
  }
  model.vocab_size = static_cast<int>(embedding->shape[0]);
  model.tied_lm_head = !HasTensor(file_, "output.weight");
  return model;
}

// llama.cpp reads a negative number as its default.
absl::StatusOr<YarnScaling> GgufReader::ReadYarn() const {
  YarnScaling yarn;
  for (const auto& [rest, value] :
       {std::pair<const char*, double*>("rope.scaling.yarn_beta_fast",
                                        &yarn.beta_fast),
        {"rope.scaling.yarn_beta_slow", &yarn.beta_slow}}) {
    QK_ASSIGN_OR_RETURN(const double given,
                        file_.GetDoubleOr(Key(rest), *value));
    if (given >= 0) *value = given;
  }
  if (!(yarn.beta_fast > yarn.beta_slow && yarn.beta_slow > 0)) {
    return file_.Error(
        Key("rope.scaling.yarn_beta_fast"),
        absl::StrCat("must be more than yarn_beta_slow ", yarn.beta_slow,
                     ", which must be > 0, got ", yarn.beta_fast));
  }
  constexpr char kShare[] = "rope.scaling.yarn_ext_factor";
  QK_ASSIGN_OR_RETURN(const double share, file_.GetDoubleOr(Key(kShare), 1.0));
  if (share >= 0 && share != 1) {
    return absl::UnimplementedError(
        absl::StrCat(Key(kShare), ": ", share, " is not implemented"));
  }
  return yarn;
}

absl::StatusOr<RopeConfig> GgufReader::ReadRope(
    const ModelConfig& model) const {
  QK_ASSIGN_OR_RETURN(const double theta,
                      GetPositiveOr("rope.freq_base", 10000.0));
  const int head_dim = model.layers[0].attention.head_dim;
  QK_ASSIGN_OR_RETURN(const int dims,
                      GetSizeOr("rope.dimension_count", head_dim, head_dim));
  if (dims % 2 != 0) {
    return file_.Error(Key("rope.dimension_count"),
                       absl::StrCat("must be even, got ", dims));
  }
  if (theta <= 1 || theta > 1e30) {
    return file_.Error(Key("rope.freq_base"),
                       absl::StrCat("must be in (1, 1e30], got ", theta));
  }
  RopeConfig rope = PlainRope(theta, dims);
  QK_ASSIGN_OR_RETURN(const absl::string_view kind,
                      file_.GetStringOr(Key("rope.scaling.type"), "linear"));
  QK_ASSIGN_OR_RETURN(const double old_factor,
                      GetPositiveOr("rope.scale_linear", 1.0));
  QK_ASSIGN_OR_RETURN(const double factor,
                      GetPositiveOr("rope.scaling.factor", old_factor));
  QK_ASSIGN_OR_RETURN(const int original,
                      GetSizeOr("rope.scaling.original_context_length",
                                kMaxContext, model.context_length));
  if (kind == "linear" && factor != 1) {
    ApplyLinear(factor, &rope);
  } else if (kind == "yarn") {
    QK_ASSIGN_OR_RETURN(YarnScaling yarn, ReadYarn());
    yarn.factor = factor;
    yarn.original_context = original;
    ApplyYarn(yarn, &rope);
    QK_ASSIGN_OR_RETURN(const double yarn_factor,
                        GetPositiveOr("rope.scaling.yarn_attn_factor", 1.0));
    rope.attention_factor *= yarn_factor;
  } else if (kind != "none" && kind != "linear" && kind != "longrope") {
    return absl::UnimplementedError(absl::StrCat(
        Key("rope.scaling.type"), ": '", Excerpt(kind),
        "' is not implemented (implemented: none, linear, yarn, longrope)"));
  }
  QK_ASSIGN_OR_RETURN(const double attention_factor,
                      GetPositiveOr("rope.scaling.attn_factor", 1.0));
  rope.attention_factor *= attention_factor;
  return rope;
}

WeightNames GgufNames(const GgufFile& file) {
  WeightNames n;
  n.embedding = "token_embd";
  n.positions = "position_embd";
  n.final_norm = "output_norm";
  n.lm_head = "output";
  n.layer = "blk.";
  n.attention_norm = "attn_norm";
  n.mlp_norm = "ffn_norm";
  n.post_attention_norm = "post_attention_norm";
  n.post_mlp_norm = "post_ffw_norm";
  n.q = "attn_q";
  n.k = "attn_k";
  n.v = "attn_v";
  n.o = "attn_output";
  n.q_norm = "attn_q_norm";
  n.k_norm = "attn_k_norm";
  n.gate = "ffn_gate";
  n.up = "ffn_up";
  n.down = "ffn_down";
  if (HasTensor(file, "blk.0.attn_qkv.weight")) n.qkv = "attn_qkv";
  return n;
}

}  // namespace qk
