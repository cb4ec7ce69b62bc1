#include "server/convert/convert_rule.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/types/rule_shape.h"
#include "server/convert/convert_enums.h"
#include "server/convert/convert_fields.h"
#include "server/convert/rule_converter.h"

namespace qk {

absl::Status RuleConverter::Tower() {
  QK_ASSIGN_OR_RETURN(
      out.vision, ConvertEnum(Sub("tower"), in.tower(), false, kTowerTable));
  if (!out.vision) return absl::OkStatus();
  if (config.vision.num_layers == 0) {
    return BadField(Sub("tower"), "the model has no vision tower");
  }
  for (const auto& [given, name] : {std::pair{in.has_stat_span(), "stat_span"},
                                    {in.has_positions(), "positions"},
                                    {in.reselect(), "reselect"}}) {
    if (given) return BadField(Sub(name), "has no meaning in tower VISION");
  }
  return absl::OkStatus();
}

absl::Status RuleConverter::Tensors() {
  if (in.tensors().empty()) return absl::OkStatus();
  out.tensors.clear();
  for (int i = 0; i < in.tensors_size(); ++i) {
    const std::string name = absl::StrFormat("%s.tensors[%d]", field, i);
    const int number = in.tensors(i);
    if (number == 0) return BadField(name, "must be Q, K or V");
    QK_ASSIGN_OR_RETURN(const Qkv tensor,
                        ConvertEnum(name, number, Qkv::kQ, kQkvTable));
    if (std::find(out.tensors.begin(), out.tensors.end(), tensor) !=
        out.tensors.end()) {
      return BadField(name, absl::StrCat(QkvName(tensor), " is given twice"));
    }
    out.tensors.push_back(tensor);
  }
  std::sort(out.tensors.begin(), out.tensors.end());
  return absl::OkStatus();
}

absl::Status RuleConverter::Enums() {
  QK_ASSIGN_OR_RETURN(
      out.point, ConvertEnum(Sub("point"), in.point(), out.point, kPointTable));
  QK_ASSIGN_OR_RETURN(
      out.axis, ConvertEnum(Sub("axis"), in.axis(), out.axis, kAxisTable));
  QK_ASSIGN_OR_RETURN(out.replace, ConvertEnum(Sub("replace"), in.replace(),
                                               out.replace, kReplaceTable));
  QK_ASSIGN_OR_RETURN(out.kv_grouping,
                      ConvertEnum(Sub("kv_grouping"), in.kv_grouping(),
                                  out.kv_grouping, kKvGroupingTable));
  QK_ASSIGN_OR_RETURN(
      out.phase, ConvertEnum(Sub("phase"), in.phase(), out.phase, kPhaseTable));
  QK_ASSIGN_OR_RETURN(out.kv_cache, ConvertEnum(Sub("kv_cache"), in.kv_cache(),
                                                out.kv_cache, kKvCacheTable));
  out.reselect = in.reselect();
  return absl::OkStatus();
}

absl::Status RuleConverter::Layers() {
  if (out.vision) {
    QK_ASSIGN_OR_RETURN(
        out.layers,
        ConvertIndices(Sub("layers"), in.layers(), config.vision.num_layers,
                       limits.max_list_entries,
                       absl::StatusCode::kInvalidArgument));
    if (out.layers.empty()) {
      out.layers.resize(config.vision.num_layers);
      std::iota(out.layers.begin(), out.layers.end(), 0);
    }
    return absl::OkStatus();
  }
  QK_ASSIGN_OR_RETURN(
      out.layers,
      ConvertLayers(Sub("layers"), in.layers(), config, limits.max_list_entries,
                    absl::StatusCode::kInvalidArgument));
  return absl::OkStatus();
}

absl::Status RuleConverter::Heads() {
  for (Qkv tensor : out.tensors) {
    auto heads =
        ConvertIndices(Sub("heads"), in.heads(), HeadsOf(tensor),
                       limits.max_list_entries, absl::StatusCode::kOutOfRange);
    if (absl::IsOutOfRange(heads.status())) {
      return absl::InvalidArgumentError(
          absl::StrCat(heads.status().message(), " of ", QkvName(tensor)));
    }
    QK_RETURN_IF_ERROR(heads.status());
    out.heads = *std::move(heads);
  }
  return absl::OkStatus();
}

absl::Status RuleConverter::Factor() {
  if (!in.has_factor()) return absl::OkStatus();
  QK_RETURN_IF_ERROR(CheckFinite(Sub("factor"), in.factor()));
  // Kernels compute in float32.
  if (std::abs(in.factor()) > std::numeric_limits<float>::max()) {
    return BadField(Sub("factor"),
                    absl::StrFormat("%g is outside float32", in.factor()));
  }
  if (out.replace != DisruptionRule::Replace::kScale) {
    return BadField(Sub("factor"), "needs replace SCALE");
  }
  out.factor = in.factor();
  return absl::OkStatus();
}

absl::Status RuleConverter::Spans() {
  if (out.vision) {
    out.stat_span = out.positions = kAllPatches;
    return absl::OkStatus();
  }
  QK_ASSIGN_OR_RETURN(
      out.stat_span,
      ConvertSpan(in.stat_span(), Sub("stat_span"), prompt, prompt.end));
  if (!in.has_positions()) {
    out.positions = out.stat_span;
    return absl::OkStatus();
  }
  QK_ASSIGN_OR_RETURN(
      out.positions,
      ConvertSpan(in.positions(), Sub("positions"), prompt, prompt.end));
  return absl::OkStatus();
}

absl::Status RuleConverter::Combinations() {
  const bool per_token = out.axis == DisruptionRule::Axis::kPerToken;
  if (per_token && out.replace == DisruptionRule::Replace::kPerDimMean) {
    return BadField(Sub("replace"),
                    "PER_DIM_MEAN needs axis PER_HEAD, got PER_TOKEN");
  }
  if (per_token && out.select == DisruptionRule::Select::kExplicit) {
    return BadField(Sub("explicit"), "needs axis PER_HEAD, got PER_TOKEN");
  }
  if (out.vision && out.phase != static_cast<unsigned>(Phase::kPrefill)) {
    return BadField(Sub("phase"), "tower VISION has no phase but PREFILL");
  }
  if (out.kv_cache == DisruptionRule::KvCache::kAttentionOnly) {
    if (!out.vision) return absl::OkStatus();
    return BadField(Sub("kv_cache"), "tower VISION has no cache");
  }
  for (int layer : out.layers) {
    for (Qkv tensor : out.tensors) {
      if (!CopiesDiffer(out, tensor, config.attention(out.vision, layer))) {
        continue;
      }
      return BadField(Sub("kv_cache"),
                      "PERSIST cannot keep copies of K or V that differ inside "
                      "a group (kv_grouping QUERY_HEAD); use ATTENTION_ONLY");
    }
  }
  return absl::OkStatus();
}

const char* QkvName(Qkv tensor) {
  switch (tensor) {
    case Qkv::kQ:
      return "Q";
    case Qkv::kK:
      return "K";
    case Qkv::kV:
      return "V";
  }
  return "?";
}

absl::StatusOr<Range> ConvertSpan(const pb::Span& span, absl::string_view field,
                                  Range whole, int tokens) {
  Range range = whole;
  if (span.has_begin()) range.begin = span.begin();
  if (span.has_end()) range.end = span.end();
  if (range.begin < 0 || range.begin > tokens) {
    return BadField(
        absl::StrCat(field, ".begin"),
        absl::StrFormat("%d is outside [0, %d]", range.begin, tokens));
  }
  if (range.end < 0 || range.end > tokens) {
    return BadField(
        absl::StrCat(field, ".end"),
        absl::StrFormat("%d is outside [0, %d]", range.end, tokens));
  }
  if (range.begin >= range.end) {
    return BadField(
        field, absl::StrFormat("[%d, %d) is empty", range.begin, range.end));
  }
  return range;
}

absl::StatusOr<DisruptionRule> ConvertRule(const pb::DisruptionRule& rule,
                                           absl::string_view field,
                                           const ModelConfig& config,
                                           int prompt_tokens,
                                           const Limits& limits) {
  RuleConverter converter = {rule, std::string(field), config,
                             Range{0, prompt_tokens}, limits};
  QK_RETURN_IF_ERROR(converter.Tower());
  QK_RETURN_IF_ERROR(converter.Tensors());
  QK_RETURN_IF_ERROR(converter.Enums());
  QK_RETURN_IF_ERROR(converter.Layers());
  QK_RETURN_IF_ERROR(converter.Heads());
  QK_RETURN_IF_ERROR(converter.Select());
  QK_RETURN_IF_ERROR(converter.Factor());
  QK_RETURN_IF_ERROR(converter.Spans());
  QK_RETURN_IF_ERROR(converter.Combinations());
  return std::move(converter.out);
}

}  // namespace qk
