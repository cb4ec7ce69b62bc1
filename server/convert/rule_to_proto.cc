#include "server/convert/convert_enums.h"
#include "server/convert/convert_fields.h"
#include "server/convert/convert_rule.h"

namespace qk {
namespace {

void SelectToProto(const DisruptionRule& rule, pb::DisruptionRule* out) {
  switch (rule.select) {
    case DisruptionRule::Select::kTopK:
      out->mutable_top_k()->set_k(rule.k);
      return;
    case DisruptionRule::Select::kBottomK:
      out->mutable_bottom_k()->set_k(rule.k);
      return;
    case DisruptionRule::Select::kRandomK:
      out->mutable_random_k()->set_k(rule.k);
      out->mutable_random_k()->set_seed(rule.seed);
      out->mutable_random_k()->set_exclude_top(rule.exclude_top);
      return;
    case DisruptionRule::Select::kThreshold:
      out->mutable_threshold()->set_lambda(rule.lambda);
      return;
    case DisruptionRule::Select::kExplicit:
      for (const HeadDim& entry : rule.entries) {
        pb::HeadDim* to = out->mutable_explicit_()->add_entries();
        to->set_head(entry.head);
        to->set_dim(entry.dim);
      }
      return;
  }
}

void SpanToProto(const Range& range, pb::Span* out) {
  out->set_begin(range.begin);
  out->set_end(range.end);
}

}  // namespace

pb::DisruptionRule RuleToProto(const DisruptionRule& rule) {
  using Proto = pb::DisruptionRule;
  Proto out;
  for (Qkv tensor : rule.tensors) {
    out.add_tensors(static_cast<pb::QkvTensor>(EnumNumber(tensor, kQkvTable)));
  }
  SelectToProto(rule, &out);
  out.set_point(static_cast<Proto::Point>(EnumNumber(rule.point, kPointTable)));
  out.set_axis(static_cast<Proto::Axis>(EnumNumber(rule.axis, kAxisTable)));
  out.set_replace(
      static_cast<Proto::Replace>(EnumNumber(rule.replace, kReplaceTable)));
  if (rule.replace == DisruptionRule::Replace::kScale) {
    out.set_factor(rule.factor);
  }
  out.set_kv_grouping(static_cast<Proto::KvGrouping>(
      EnumNumber(rule.kv_grouping, kKvGroupingTable)));
  out.set_kv_cache(
      static_cast<Proto::KvCache>(EnumNumber(rule.kv_cache, kKvCacheTable)));
  out.set_phase(static_cast<pb::Phase>(EnumNumber(rule.phase, kPhaseTable)));
  out.set_reselect(rule.reselect);
  out.set_tower(
      static_cast<Proto::Tower>(EnumNumber(rule.vision, kTowerTable)));
  if (!rule.vision) {
    SpanToProto(rule.stat_span, out.mutable_stat_span());
    SpanToProto(rule.positions, out.mutable_positions());
  }
  out.mutable_layers()->Assign(rule.layers.begin(), rule.layers.end());
  out.mutable_heads()->Assign(rule.heads.begin(), rule.heads.end());
  return out;
}

}  // namespace qk
