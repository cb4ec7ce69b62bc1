#include "engine/hooks/disrupt.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/base/check.h"
#include "engine/types/rule_shape.h"

namespace qk {
namespace {

using Rule = DisruptionRule;

// The roles of a tensor's `physical` heads under a rule that counts `counted`
// heads in it. A head that stands for several counted heads has the number of
// the first.
std::vector<HeadRole> Roles(const Rule& rule, int physical, int counted) {
  std::vector<HeadRole> roles(physical);
  for (int h = 0; h < physical; ++h) {
    const int id = h * counted / physical;
    roles[h] = {ActsOnHead(rule, id), id};
  }
  return roles;
}

// The rows of the span at these positions.
RowSet RowsAt(Range positions, const RowSpan& span) {
  return {positions.begin - span.first_position, positions.size()};
}

// The place in a table (layers, points, stages, phases).
size_t PlaceIn(int layer, HookPoint point, Stage stage, Phase phase) {
  const size_t at =
      static_cast<size_t>(layer) * kNumHookPoints + static_cast<size_t>(point);
  return (at * 2 + (stage == Stage::kAfter ? 1 : 0)) * 2 +
         (phase == Phase::kDecode ? 1 : 0);
}

// The step that a rule's random choice in this span is keyed by.
int ChoiceStep(const RowSpan& span) {
  return span.phase == Phase::kPrefill ? 0 : 1 + span.step;
}

}  // namespace

Disruptor::Disruptor(const ModelConfig& config, const std::vector<Rule>& rules,
                     int positions, int arm, int image)
    : rules_(rules),
      positions_(positions),
      arm_(arm),
      image_(image),
      layouts_(config.num_layers(image >= 0), KvLayout::kShared),
      by_layer_(layouts_.size()) {
  const bool of_vision = image >= 0;
  for (const Rule& rule : rules) {
    if (rule.vision != of_vision) continue;
    for (int layer : rule.layers) {
      const AttentionConfig& c = config.attention(of_vision, layer);
      for (Qkv tensor : rule.tensors) {
        if (tensor == Qkv::kQ || rule.kv_cache == Rule::KvCache::kPersist) {
          continue;
        }
        const KvLayout wanted = CopiesDiffer(rule, tensor, c)
                                    ? KvLayout::kExpanded
                                    : KvLayout::kCopied;
        layouts_[layer] = std::max(layouts_[layer], wanted);
        needs_copy_ = true;
      }
    }
  }
  for (size_t layer = 0; layer < layouts_.size(); ++layer) {
    if (layouts_[layer] == KvLayout::kShared) continue;
    const AttentionConfig& c =
        config.attention(of_vision, static_cast<int>(layer));
    copy_heads_ = std::max(copy_heads_, layouts_[layer] == KvLayout::kExpanded
                                            ? c.num_heads
                                            : c.num_kv_heads);
  }
  FindDifferingCopies(config);
  for (size_t i = 0; i < rules.size(); ++i) {
    if (rules[i].vision != of_vision) continue;
    num_entries_ += static_cast<int64_t>(rules[i].entries.size());
    for (int layer : rules[i].layers) {
      for (Qkv tensor : rules[i].tensors) {
        const int index = static_cast<int>(i);
        AddState(config, index, tensor, layer, false);
        if (tensor != Qkv::kQ && layouts_[layer] != KvLayout::kShared &&
            rules[i].kv_cache == Rule::KvCache::kPersist) {
          AddState(config, index, tensor, layer, true);
        }
      }
    }
  }
}

void Disruptor::FindDifferingCopies(const ModelConfig& config) {
  differ_.resize(layouts_.size() * kNumHookPoints * 2 * 2);
  for (size_t i = 0; i < layouts_.size(); ++i) {
    if (layouts_[i] != KvLayout::kExpanded) continue;
    const int layer = static_cast<int>(i);
    for (HookPoint point : {HookPoint::kK, HookPoint::kRotK, HookPoint::kV}) {
      for (Stage stage : {Stage::kBefore, Stage::kAfter}) {
        for (Phase phase : {Phase::kPrefill, Phase::kDecode}) {
          differ_[PlaceIn(layer, point, stage, phase)] =
              CopiesDifferAt(rules_, layer, point, stage, phase,
                             config.attention(image_ >= 0, layer));
        }
      }
    }
  }
}

bool Disruptor::copies_differ(HookPoint point, int layer, Stage stage,
                              Phase phase) const {
  return differ_[PlaceIn(layer, point, stage, phase)];
}

void Disruptor::AddState(const ModelConfig& config, int rule_index, Qkv tensor,
                         int layer, bool on_cache) {
  const AttentionConfig& c = config.attention(image_ >= 0, layer);
  State state;
  state.rule = &rules_[rule_index];
  state.rule_index = rule_index;
  state.tensor = tensor;
  state.point = PointOf(*state.rule, tensor);
  state.layer = layer;
  state.on_cache = on_cache;
  state.head_dim = c.head_dim;
  int heads = tensor == Qkv::kQ ? c.num_heads : c.num_kv_heads;
  if (tensor != Qkv::kQ && !on_cache &&
      layouts_[layer] == KvLayout::kExpanded) {
    heads = c.num_heads;
  }
  state.counted_heads = RuleHeads(*state.rule, tensor, c);
  state.heads = Roles(*state.rule, heads, state.counted_heads);
  if (state.rule->axis == Rule::Axis::kPerHead) {
    state.offset = state_bytes_;
    // A dim has its square, sum (float64), value (float32) and mask (a byte).
    state_bytes_ += (int64_t{state.size()} * (8 + 8 + 4 + 1) + 63) / 64 * 64;
  }
  staging_bytes_ = std::max(staging_bytes_,
                            HookOps::BytesFor(state.ReportBytes(positions_)));
  num_roles_ += heads;
  by_layer_[layer].push_back(static_cast<int>(states_.size()));
  states_.push_back(std::move(state));
}

std::vector<int> Disruptor::StatesAt(HookPoint point, int layer,
                                     bool on_cache) const {
  std::vector<int> found;
  for (int i : by_layer_[layer]) {
    const State& state = states_[i];
    if (state.point == point && state.on_cache == on_cache) found.push_back(i);
  }
  return found;
}

void Disruptor::Apply(int index, const RowSpan& span, const HeadRows& x,
                      HookOps& ops) {
  State& state = states_[index];
  QK_CHECK(x.heads == static_cast<int>(state.heads.size()));
  const RowSet rows = RowsAt(ChangedPositions(*state.rule, span), span);
  if (state.rule->axis == Rule::Axis::kPerHead) {
    RunPerHead(state, span, x, rows, ops);
  } else if (Has(state.rule->phase, span.phase)) {
    RunPerToken(state, span, x, rows, ops);
  }
}

void Disruptor::RunPerHead(State& state, const RowSpan& span, const HeadRows& x,
                           const RowSet& rows, HookOps& ops) {
  const Rule& rule = *state.rule;
  const bool prefill = span.phase == Phase::kPrefill;
  const bool acts = Has(rule.phase, span.phase);
  if (!acts && !(prefill && Has(rule.phase, Phase::kDecode))) return;
  const bool choose = Has(ChoosingPhases(rule), span.phase);
  if (!state.on_cache && !span.recomputed) {
    if (choose) {
      ReportChoice(state, span, ops).rows = acts ? rows.count : 0;
    } else {
      state.unreported_rows += rows.count;
    }
  }
  // Statistics come first, because they are taken from undisrupted values.
  if (choose) {
    const RowSet counted = RowsAt(CountedPositions(rule, span), span);
    state.count += counted.count;
    ops.Add(MomentsJob{x, counted, state.moments});
    ops.Add(SelectJob{state.tensor_rule, ChoiceStep(span), state.moments,
                      state.count, state.head_dim, state.choice});
  }
  if (acts) {
    ops.Add(ReplaceJob{x, rows, state.choice, rule.replace, rule.factor});
  }
}

void Disruptor::RunPerToken(State& state, const RowSpan& span,
                            const HeadRows& x, const RowSet& rows,
                            HookOps& ops) {
  const int64_t bytes = state.ReportBytes(rows.count);
  const bool reports = !state.on_cache && !span.recomputed;
  const HookOps::Room room = reports ? ops.Take(bytes) : ops.Take(0, bytes);
  auto* values = static_cast<float*>(reports ? room.result : room.scratch);
  auto* mask = reinterpret_cast<uint8_t*>(values + rows.count);
  ops.Add(TokenRuleJob{
      state.tensor_rule, ChoiceStep(span), x, rows, {mask, values}});
  if (!reports) return;
  Report& report = AddReport(state, span);
  report.data = room.staged;
  report.num_values = rows.count;
  report.positions.resize(rows.count);
  std::iota(report.positions.begin(), report.positions.end(),
            span.first_position + rows.begin);
}

void Disruptor::Restart(HookOps& ops) {
  if (states_.empty()) return;
  ReportDecode(ops);
  ops.Run();  // the choice may change
  backend_->Zero(memory_.as<void>(), state_bytes_);
  for (State& state : states_) state.count = 0;
}

bool Disruptor::ReportDecode(HookOps& ops) {
  RowSpan all;
  all.phase = Phase::kDecode;
  bool any = false;
  for (State& state : states_) {
    if (state.unreported_rows == 0) continue;
    Report& report = ReportChoice(state, all, ops);
    report.rows = std::exchange(state.unreported_rows, 0);
    report.chosen = false;
    any = true;
  }
  return any;
}

Disruptor::Report& Disruptor::AddReport(const State& state,
                                        const RowSpan& span) {
  Report& report = reports_.emplace_back();
  report.applied.arm = arm_;
  report.applied.rule = state.rule_index;
  report.applied.layer = state.layer;
  report.applied.tensor = state.tensor;
  report.applied.phase = span.phase;
  report.applied.step = span.step;
  report.applied.image = image_;
  report.state = &state;
  return report;
}

// Reports a per_head rule's choice, as it is when `ops` copies it.
Disruptor::Report& Disruptor::ReportChoice(const State& state,
                                           const RowSpan& span, HookOps& ops) {
  const int64_t bytes = state.ReportBytes(1);
  const HookOps::Room room = ops.Take(bytes);
  // The mask lies behind the values.
  ops.Add(CopyJob{room.result, state.choice.values, bytes});
  Report& report = AddReport(state, span);
  report.data = room.staged;
  report.num_values = state.size();
  return report;
}

namespace {

// The dims that a mask (dims) chose in a head or for a token. `values`: (dims),
// or, for a token, its single value.
AppliedDims DimsOf(const Rule& rule, int index, const uint8_t* mask, int dims,
                   const float* values) {
  const bool per_token = rule.axis == Rule::Axis::kPerToken;
  const bool pooled = rule.replace == Rule::Replace::kPooledMean;
  AppliedDims chosen;
  chosen.index = index;
  for (int d = 0; d < dims; ++d) {
    if (!mask[d]) continue;
    chosen.dims.push_back(d);
    if (rule.replace == Rule::Replace::kScale) continue;
    if (pooled && !chosen.values.empty()) continue;
    chosen.values.push_back(per_token ? *values : values[d]);
  }
  return chosen;
}

}  // namespace

void Disruptor::FillReport(const Report& report, AppliedRule* applied) {
  const State& state = *report.state;
  const Rule& rule = *state.rule;
  const int dims = state.head_dim;
  const int heads = static_cast<int>(state.heads.size());
  const uint8_t* data = report.data.bytes().data();
  const auto* values = reinterpret_cast<const float*>(data);
  const absl::Span<const uint8_t> mask =
      report.data.bytes().subspan(4 * report.num_values);
  if (rule.axis == Rule::Axis::kPerHead) {
    // The report counts heads as the rule does: a KV head that stands for a
    // group appears once per query head, and a group's copies of a KV head
    // appear once.
    for (int h = 0; h < state.counted_heads; ++h) {
      if (!ActsOnHead(rule, h)) continue;
      const int physical = h * heads / state.counted_heads;
      AppliedDims chosen = DimsOf(rule, h, mask.data() + physical * dims, dims,
                                  values + physical * dims);
      applied->replaced +=
          static_cast<int64_t>(chosen.dims.size()) * report.rows;
      if (report.chosen) applied->chosen.push_back(std::move(chosen));
    }
    return;
  }
  const int64_t set = std::count(mask.begin(), mask.end(), uint8_t{1});
  applied->replaced = set * state.counted_heads / heads;
  for (size_t i = 0; i < report.positions.size(); ++i) {
    // All heads of the rule share a token's dims.
    std::vector<uint8_t> any(dims, 0);
    for (int h = 0; h < heads; ++h) {
      const uint8_t* of_head = mask.data() + (i * heads + h) * dims;
      for (int d = 0; d < dims; ++d) any[d] |= of_head[d];
    }
    applied->chosen.push_back(
        DimsOf(rule, report.positions[i], any.data(), dims, values + i));
  }
}

std::vector<AppliedRule> Disruptor::TakeReports() {
  std::vector<AppliedRule> done;
  size_t i = 0;
  for (; i < reports_.size() && reports_[i].data.here(); ++i) {
    FillReport(reports_[i], &reports_[i].applied);
    done.push_back(std::move(reports_[i].applied));
  }
  reports_.erase(reports_.begin(), reports_.begin() + i);
  return done;
}

}  // namespace qk
