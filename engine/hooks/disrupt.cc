#include "engine/hooks/disrupt.h"

#include <algorithm>
#include <numeric>

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
  } else {
    token_mask_bytes_ = std::max<int64_t>(token_mask_bytes_,
                                          int64_t{positions_} * state.size());
  }
  num_roles_ += heads;
  by_layer_[layer].push_back(static_cast<int>(states_.size()));
  states_.push_back(std::move(state));
}

void Disruptor::Apply(HookPoint point, int layer, const RowSpan& span,
                      const HeadRows& x) {
  RunStates(point, layer, false, span, x);
}

void Disruptor::ApplyToCache(HookPoint point, int layer, const RowSpan& span,
                             const HeadRows& x) {
  RunStates(point, layer, true, span, x);
}

void Disruptor::RunStates(HookPoint point, int layer, bool on_cache,
                          const RowSpan& span, const HeadRows& x) {
  for (int i : by_layer_[layer]) {
    State& state = states_[i];
    if (state.point == point && state.on_cache == on_cache) {
      RunState(state, span, x);
    }
  }
}

void Disruptor::RunState(State& state, const RowSpan& span, const HeadRows& x) {
  QK_CHECK(x.heads == static_cast<int>(state.heads.size()));
  const RowSet rows = RowsAt(ChangedPositions(*state.rule, span), span);
  if (state.rule->axis == Rule::Axis::kPerHead) {
    RunPerHead(state, span, x, rows);
  } else if (Has(state.rule->phase, span.phase)) {
    RunPerToken(state, span, x, rows);
  }
}

void Disruptor::RunPerHead(State& state, const RowSpan& span, const HeadRows& x,
                           const RowSet& rows) {
  const Rule& rule = *state.rule;
  const bool prefill = span.phase == Phase::kPrefill;
  const bool acts = Has(rule.phase, span.phase);
  if (!acts && !(prefill && Has(rule.phase, Phase::kDecode))) return;
  // Statistics come first, because they are taken from undisrupted values.
  const bool choose = Has(ChoosingPhases(rule), span.phase);
  if (choose) {
    const RowSet counted = RowsAt(CountedPositions(rule, span), span);
    state.count += counted.count;
    backend_->AddMoments({MomentsJob{x, counted, state.moments}});
    backend_->SelectDims(
        {SelectJob{state.tensor_rule, ChoiceStep(span), state.moments,
                   state.count, state.head_dim, state.choice}});
  }
  if (acts) {
    backend_->ReplaceDims(
        {ReplaceJob{x, rows, state.choice, rule.replace, rule.factor}});
  }
  if (state.on_cache || span.recomputed) return;
  if (choose) {
    AddReport(state, span, {}, acts ? rows.count : 0);
  } else {
    state.unreported_rows += rows.count;
  }
}

void Disruptor::RunPerToken(State& state, const RowSpan& span,
                            const HeadRows& x, const RowSet& rows) {
  const Choice choice = {token_masks_.as<uint8_t>(), token_values_.as<float>()};
  backend_->DisruptPerToken(
      {TokenRuleJob{state.tensor_rule, ChoiceStep(span), x, rows, choice}});
  if (state.on_cache || span.recomputed) return;
  std::vector<int> positions(rows.count);
  std::iota(positions.begin(), positions.end(),
            span.first_position + rows.begin);
  AddReport(state, span, std::move(positions), 0);
}

void Disruptor::Restart() {
  if (states_.empty()) return;
  ReportDecode();  // the choice may change
  backend_->Zero(memory_.as<void>(), state_bytes_);
  for (State& state : states_) state.count = 0;
}

bool Disruptor::ReportDecode() {
  RowSpan all;
  all.phase = Phase::kDecode;
  bool any = false;
  for (State& state : states_) {
    if (state.unreported_rows == 0) continue;
    AddReport(state, all, {}, state.unreported_rows).chosen = false;
    state.unreported_rows = 0;
    any = true;
  }
  return any;
}

Disruptor::Report& Disruptor::AddReport(const State& state, const RowSpan& span,
                                        std::vector<int> positions,
                                        int64_t rows) {
  Report& report = reports_.emplace_back();
  report.applied.arm = arm_;
  report.applied.rule = state.rule_index;
  report.applied.layer = state.layer;
  report.applied.tensor = state.tensor;
  report.applied.phase = span.phase;
  report.applied.step = span.step;
  report.applied.image = image_;
  report.state = &state;
  report.positions = std::move(positions);
  report.rows = rows;
  const bool per_head = state.rule->axis == Rule::Axis::kPerHead;
  const int64_t n = state.size();
  const int64_t tokens = static_cast<int64_t>(report.positions.size());
  const uint8_t* mask =
      per_head ? state.choice.mask : token_masks_.as<uint8_t>();
  const float* values =
      per_head ? state.choice.values : token_values_.as<float>();
  report.mask = backend_->Fetch(mask, per_head ? n : tokens * n);
  report.values = backend_->Fetch(values, 4 * (per_head ? n : tokens));
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
  const absl::Span<const uint8_t> mask = report.mask.as<uint8_t>();
  const float* values = report.values.as<float>().data();
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
  for (; i < reports_.size() && reports_[i].mask.here() &&
         reports_[i].values.here();
       ++i) {
    FillReport(reports_[i], &reports_[i].applied);
    done.push_back(std::move(reports_[i].applied));
  }
  reports_.erase(reports_.begin(), reports_.begin() + i);
  return done;
}

}  // namespace qk
