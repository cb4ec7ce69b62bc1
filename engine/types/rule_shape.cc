#include "engine/types/rule_shape.h"

#include <algorithm>
#include <vector>

#include "absl/algorithm/container.h"

namespace qk {
namespace {

using Rule = DisruptionRule;

// Whether an explicit list names a dim for some heads of a group and not for
// others.
bool ListsDiffer(const Rule& rule, const AttentionConfig& c) {
  std::vector<int> times(c.kv_size(), 0);  // (num_kv_heads, head_dim)
  for (const HeadDim& entry : rule.entries) {
    ++times[entry.head / c.group_size() * c.head_dim + entry.dim];
  }
  return absl::c_any_of(times,
                        [&](int n) { return n != 0 && n != c.group_size(); });
}

// Whether the rule acts on a part of a group.
bool SplitsAGroup(const Rule& rule, const AttentionConfig& c) {
  for (int head = 0; head < c.num_heads; ++head) {
    const int first = head / c.group_size() * c.group_size();
    if (ActsOnHead(rule, head) != ActsOnHead(rule, first)) return true;
  }
  return false;
}

Range Within(Range range, const RowSpan& span) {
  const int begin = std::max(range.begin, span.first_position);
  const int end = std::min(range.end, span.first_position + span.rows);
  return {begin, std::max(begin, end)};
}

Range AllOf(const RowSpan& span) {
  return {span.first_position, span.first_position + span.rows};
}

}  // namespace

int RuleHeads(const Rule& rule, Qkv tensor, const AttentionConfig& attention) {
  const bool by_query =
      tensor == Qkv::kQ || rule.kv_grouping == Rule::KvGrouping::kQueryHead;
  return by_query ? attention.num_heads : attention.num_kv_heads;
}

bool ActsOnHead(const Rule& rule, int head) {
  return rule.heads.empty() || absl::c_binary_search(rule.heads, head);
}

bool CopiesDiffer(const Rule& rule, Qkv tensor,
                  const AttentionConfig& attention) {
  if (tensor == Qkv::kQ || rule.kv_grouping == Rule::KvGrouping::kKvHead) {
    return false;
  }
  if (rule.select == Rule::Select::kExplicit) {
    return ListsDiffer(rule, attention);
  }
  if (rule.select != Rule::Select::kThreshold && rule.k == 0) return false;
  if (SplitsAGroup(rule, attention)) return true;
  // Heads draw dims of their own, unless the draw takes all that are left.
  return rule.select == Rule::Select::kRandomK &&
         rule.axis == Rule::Axis::kPerHead && attention.group_size() > 1 &&
         rule.k + rule.exclude_top < attention.head_dim;
}

bool CopiesDifferAt(const std::vector<Rule>& rules, int layer, HookPoint point,
                    Stage stage, Phase phase,
                    const AttentionConfig& attention) {
  const Qkv tensor = TensorOf(point);
  return absl::c_any_of(rules, [&](const Rule& rule) {
    if (rule.vision || !Has(rule.phase, phase) ||
        !absl::c_binary_search(rule.layers, layer) ||
        !absl::c_linear_search(rule.tensors, tensor)) {
      return false;
    }
    const HookPoint acts = PointOf(rule, tensor);
    const bool reached =
        acts < point || (acts == point && stage == Stage::kAfter);
    return reached && CopiesDiffer(rule, tensor, attention);
  });
}

HookPoint PointOf(const Rule& rule, Qkv tensor) {
  const bool pre = rule.point == Rule::Point::kPreRope;
  switch (tensor) {
    case Qkv::kQ:
      return pre ? HookPoint::kQ : HookPoint::kRotQ;
    case Qkv::kK:
      return pre ? HookPoint::kK : HookPoint::kRotK;
    case Qkv::kV:
      return HookPoint::kV;
  }
  return HookPoint::kV;
}

Qkv TensorOf(HookPoint point) {
  switch (point) {
    case HookPoint::kK:
    case HookPoint::kRotK:
      return Qkv::kK;
    case HookPoint::kV:
      return Qkv::kV;
    default:
      return Qkv::kQ;
  }
}

PhaseSet ChoosingPhases(const Rule& rule) {
  if (rule.axis == Rule::Axis::kPerToken) return rule.phase;
  const PhaseSet prefill = static_cast<PhaseSet>(Phase::kPrefill);
  return rule.reselect ? prefill | rule.phase : prefill;
}

bool DecodesRowByRow(const Rule& rule) {
  if (!Has(rule.phase, Phase::kDecode)) return false;
  return Has(ChoosingPhases(rule), Phase::kDecode) ||
         rule.kv_cache == Rule::KvCache::kAttentionOnly;
}

Range CountedPositions(const Rule& rule, const RowSpan& span) {
  return span.phase == Phase::kDecode ? AllOf(span)
                                      : Within(rule.stat_span, span);
}

Range ChangedPositions(const Rule& rule, const RowSpan& span) {
  return span.phase == Phase::kDecode ? AllOf(span)
                                      : Within(rule.positions, span);
}

}  // namespace qk
