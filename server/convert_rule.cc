#include "server/convert_rule.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <set>

#include "absl/strings/str_format.h"
#include "engine/check.h"
#include "server/convert_enums.h"
#include "server/convert_fields.h"

namespace qk {
namespace {

std::string Sub(absl::string_view field, absl::string_view name) {
  return absl::StrCat(field, ".", name);
}

// One rule on its way; the steps fill `out` in the order of the fields.
struct RuleConverter {
  const pb::DisruptionRule& in;
  const std::string field;
  const ModelConfig& config;
  const Range prompt;
  const Limits& limits;
  DisruptionRule out = {};

  absl::Status Tensors();
  absl::Status Enums();
  absl::Status Layers();
  absl::Status Heads();
  absl::Status Select();
  absl::Status RandomK();
  absl::Status Explicit();
  absl::Status CheckK(absl::string_view name, int k);
  absl::Status Factor();
  absl::Status Spans();
  absl::Status Combinations();

  int Over(const std::function<int(const AttentionConfig&)>& size) const {
    int smallest = std::numeric_limits<int>::max();
    for (int layer : out.layers) {
      smallest = std::min(smallest, size(config.layers[layer].attention));
    }
    return smallest;
  }
  int HeadDimOf() const {
    return Over([](const AttentionConfig& a) { return a.head_dim; });
  }
  // Heads that every chosen tensor has in every chosen layer.
  int HeadsOf(Qkv tensor) const {
    return Over([&](const AttentionConfig& a) {
      return RuleHeads(out, tensor, a);
    });
  }
  bool CopiesDiffer(const AttentionConfig& attention) const;
};

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
      return BadField(name,
                      absl::StrCat(QkvName(tensor), " is given twice"));
    }
    out.tensors.push_back(tensor);
  }
  std::sort(out.tensors.begin(), out.tensors.end());
  return absl::OkStatus();
}

absl::Status RuleConverter::Enums() {
  QK_ASSIGN_OR_RETURN(out.point, ConvertEnum(Sub(field, "point"), in.point(),
                                             out.point, kPointTable));
  QK_ASSIGN_OR_RETURN(out.axis, ConvertEnum(Sub(field, "axis"), in.axis(),
                                            out.axis, kAxisTable));
  QK_ASSIGN_OR_RETURN(out.replace,
                      ConvertEnum(Sub(field, "replace"), in.replace(),
                                  out.replace, kReplaceTable));
  QK_ASSIGN_OR_RETURN(out.kv_grouping,
                      ConvertEnum(Sub(field, "kv_grouping"), in.kv_grouping(),
                                  out.kv_grouping, kKvGroupingTable));
  QK_ASSIGN_OR_RETURN(out.phase, ConvertEnum(Sub(field, "phase"), in.phase(),
                                             out.phase, kPhaseTable));
  QK_ASSIGN_OR_RETURN(out.kv_cache,
                      ConvertEnum(Sub(field, "kv_cache"), in.kv_cache(),
                                  out.kv_cache, kKvCacheTable));
  out.reselect = in.reselect();
  return absl::OkStatus();
}

absl::Status RuleConverter::Layers() {
  QK_ASSIGN_OR_RETURN(
      out.layers,
      ConvertIndices(Sub(field, "layers"), in.layers(), config.num_layers(),
                     limits.max_list_entries,
                     absl::StatusCode::kInvalidArgument));
  if (out.layers.empty()) {
    out.layers.resize(config.num_layers());
    std::iota(out.layers.begin(), out.layers.end(), 0);
  }
  return absl::OkStatus();
}

absl::Status RuleConverter::Heads() {
  for (Qkv tensor : out.tensors) {
    auto heads = ConvertIndices(Sub(field, "heads"), in.heads(),
                                HeadsOf(tensor), limits.max_list_entries,
                                absl::StatusCode::kOutOfRange);
    if (absl::IsOutOfRange(heads.status())) {
      return absl::InvalidArgumentError(absl::StrCat(
          heads.status().message(), " of ", QkvName(tensor)));
    }
    QK_RETURN_IF_ERROR(heads.status());
    out.heads = *std::move(heads);
  }
  return absl::OkStatus();
}

absl::Status RuleConverter::CheckK(absl::string_view name, int k) {
  if (k < 0) {
    return BadField(Sub(field, name), absl::StrFormat("%d is negative", k));
  }
  const int head_dim = HeadDimOf();
  if (k <= head_dim) return absl::OkStatus();
  return BadField(Sub(field, name),
                  absl::StrFormat("%d is over head_dim %d", k, head_dim));
}

absl::Status RuleConverter::RandomK() {
  const auto& random = in.random_k();
  out.select = DisruptionRule::Select::kRandomK;
  out.k = random.k();
  out.seed = random.seed();
  out.exclude_top = random.has_exclude_top() ? random.exclude_top() : out.k;
  QK_RETURN_IF_ERROR(CheckK("random_k.k", out.k));
  QK_RETURN_IF_ERROR(CheckK("random_k.exclude_top", out.exclude_top));
  const int head_dim = HeadDimOf();
  if (out.k + out.exclude_top > head_dim) {
    return BadField(Sub(field, "random_k"),
                    absl::StrFormat("k %d plus exclude_top %d is over head_dim "
                                    "%d",
                                    out.k, out.exclude_top, head_dim));
  }
  return absl::OkStatus();
}

absl::Status RuleConverter::Explicit() {
  const auto& entries = in.explicit_().entries();
  const std::string name = Sub(field, "explicit.entries");
  out.select = DisruptionRule::Select::kExplicit;
  if (entries.empty()) return BadField(name, "must not be empty");
  QK_RETURN_IF_ERROR(
      CheckCount(name, entries.size(), limits.max_list_entries));
  const int head_dim = HeadDimOf();
  std::set<std::pair<int, int>> seen;
  for (int i = 0; i < entries.size(); ++i) {
    const int head = entries[i].head(), dim = entries[i].dim();
    const std::string entry = absl::StrFormat("%s[%d]", name, i);
    for (Qkv tensor : out.tensors) {
      const int heads = HeadsOf(tensor);
      if (head >= 0 && head < heads) continue;
      return BadField(Sub(entry, "head"),
                      absl::StrFormat("%d is outside [0, %d) of %s", head,
                                      heads, QkvName(tensor)));
    }
    if (dim < 0 || dim >= head_dim) {
      return BadField(
          Sub(entry, "dim"),
          absl::StrFormat("%d is outside [0, %d)", dim, head_dim));
    }
    if (!out.heads.empty() &&
        !std::binary_search(out.heads.begin(), out.heads.end(), head)) {
      return BadField(Sub(entry, "head"),
                      absl::StrFormat("%d is not one of heads", head));
    }
    if (!seen.insert({head, dim}).second) {
      return BadField(entry, absl::StrFormat("(%d, %d) is given twice", head,
                                             dim));
    }
    out.entries.push_back({head, dim});
  }
  // The other heads are not touched, and are free for other rules.
  out.heads.clear();
  for (const auto& [head, dim] : seen) {
    if (out.heads.empty() || out.heads.back() != head) {
      out.heads.push_back(head);
    }
  }
  return absl::OkStatus();
}

absl::Status RuleConverter::Select() {
  switch (in.select_case()) {
    case pb::DisruptionRule::kTopK:
      out.select = DisruptionRule::Select::kTopK;
      out.k = in.top_k().k();
      return CheckK("top_k.k", out.k);
    case pb::DisruptionRule::kBottomK:
      out.select = DisruptionRule::Select::kBottomK;
      out.k = in.bottom_k().k();
      return CheckK("bottom_k.k", out.k);
    case pb::DisruptionRule::kRandomK:
      return RandomK();
    case pb::DisruptionRule::kThreshold:
      out.select = DisruptionRule::Select::kThreshold;
      if (in.threshold().has_lambda()) out.lambda = in.threshold().lambda();
      return CheckPositive(Sub(field, "threshold.lambda"), out.lambda);
    case pb::DisruptionRule::kExplicit:
      return Explicit();
    case pb::DisruptionRule::SELECT_NOT_SET:
      break;
  }
  return BadField(field,
                  "exactly one of top_k, bottom_k, random_k, threshold, "
                  "explicit must be set");
}

absl::Status RuleConverter::Factor() {
  if (!in.has_factor()) return absl::OkStatus();
  QK_RETURN_IF_ERROR(CheckFinite(Sub(field, "factor"), in.factor()));
  // Kernels compute in float32.
  if (std::abs(in.factor()) > std::numeric_limits<float>::max()) {
    return BadField(Sub(field, "factor"),
                    absl::StrFormat("%g is outside float32", in.factor()));
  }
  if (out.replace != DisruptionRule::Replace::kScale) {
    return BadField(Sub(field, "factor"), "needs replace SCALE");
  }
  out.factor = in.factor();
  return absl::OkStatus();
}

absl::Status RuleConverter::Spans() {
  QK_ASSIGN_OR_RETURN(out.stat_span,
                      ConvertSpan(in.stat_span(), Sub(field, "stat_span"),
                                  prompt, prompt.end));
  if (!in.has_positions()) {
    out.positions = out.stat_span;
    return absl::OkStatus();
  }
  QK_ASSIGN_OR_RETURN(out.positions,
                      ConvertSpan(in.positions(), Sub(field, "positions"),
                                  prompt, prompt.end));
  return absl::OkStatus();
}

// Whether K (or V) of one group would differ between its query heads.
bool RuleConverter::CopiesDiffer(const AttentionConfig& attention) const {
  const int group = attention.group_size();
  if (out.kv_grouping != DisruptionRule::KvGrouping::kQueryHead || group == 1) {
    return false;
  }
  if (out.tensors == std::vector<Qkv>{Qkv::kQ}) return false;
  if (out.select == DisruptionRule::Select::kRandomK ||
      out.select == DisruptionRule::Select::kExplicit) {
    return true;
  }
  // A group is changed as a whole or not at all.
  for (size_t i = 0; i < out.heads.size(); i += group) {
    const int head = out.heads[i];
    if (head % group != 0 || i + group > out.heads.size() ||
        out.heads[i + group - 1] != head + group - 1) {
      return true;
    }
  }
  return false;
}

absl::Status RuleConverter::Combinations() {
  const bool per_token = out.axis == DisruptionRule::Axis::kPerToken;
  if (per_token && out.replace == DisruptionRule::Replace::kPerDimMean) {
    return BadField(Sub(field, "replace"),
                    "PER_DIM_MEAN needs axis PER_HEAD, got PER_TOKEN");
  }
  if (per_token && out.select == DisruptionRule::Select::kExplicit) {
    return BadField(Sub(field, "explicit"),
                    "needs axis PER_HEAD, got PER_TOKEN");
  }
  if (out.kv_cache == DisruptionRule::KvCache::kAttentionOnly) {
    return absl::OkStatus();
  }
  for (int layer : out.layers) {
    if (!CopiesDiffer(config.layers[layer].attention)) continue;
    return BadField(Sub(field, "kv_cache"),
                    "PERSIST cannot keep copies of K or V that differ inside "
                    "a group (kv_grouping QUERY_HEAD); use ATTENTION_ONLY");
  }
  return absl::OkStatus();
}

}  // namespace

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

int RuleHeads(const DisruptionRule& rule, Qkv tensor,
              const AttentionConfig& attention) {
  const bool by_query =
      tensor == Qkv::kQ ||
      rule.kv_grouping == DisruptionRule::KvGrouping::kQueryHead;
  return by_query ? attention.num_heads : attention.num_kv_heads;
}

absl::StatusOr<Range> ConvertSpan(const pb::Span& span, absl::string_view field,
                                  Range whole, int tokens) {
  Range range = whole;
  if (span.has_begin()) range.begin = span.begin();
  if (span.has_end()) range.end = span.end();
  if (range.begin < 0 || range.begin > tokens) {
    return BadField(Sub(field, "begin"),
                    absl::StrFormat("%d is outside [0, %d]", range.begin,
                                    tokens));
  }
  if (range.end < 0 || range.end > tokens) {
    return BadField(Sub(field, "end"),
                    absl::StrFormat("%d is outside [0, %d]", range.end,
                                    tokens));
  }
  if (range.begin >= range.end) {
    return BadField(field, absl::StrFormat("[%d, %d) is empty", range.begin,
                                           range.end));
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
