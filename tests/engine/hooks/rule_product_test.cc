// Every rule that validation accepts runs on a model with grouped queries. Its
// dims, values and reports, and the K and V that attention reads in prefill and
// decode, must match a plain float64 reference.
#include "tests/engine/hooks/rule_product.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include "tests/engine/forward_driver.h"
#include "tests/engine/hooks/rule_reference.h"

namespace qk::testing {
namespace {

using Rule = DisruptionRule;

constexpr double kTheta = 10000;  // the model's rope_theta
constexpr int kPrompt = 5, kSteps = 2;
// Compares float32 with float64; the values are of order 1.
constexpr double kTolerance = 2e-6;

// One sequence under some rules, compared with the reference. The reference
// starts from the captured projections q, k and v.
class CheckedRun {
 public:
  CheckedRun(std::shared_ptr<const Model> model,
             const std::vector<Combination>& combinations,
             const std::vector<int>& layers)
      : combinations_(combinations), layers_(layers), config_(model->config()) {
    for (const Combination& combination : combinations) {
      Rule& rule = rules_.emplace_back(combination.rule);
      // Neither span is the whole prompt, and the two differ.
      rule.stat_span = {1, kPrompt};
      rule.positions = {0, kPrompt - 1};
      rule.layers = layers;
    }
    CaptureSpec capture = CaptureAll(config_);
    capture.layers = layers;
    capture.stage = 3;
    driven_ = std::make_unique<Driven>(
        std::move(model), GoldenPrompt{{1, 28, 23, 85, 12}, {92, 6}}, rules_,
        capture);
  }

  Driven* driven() { return driven_.get(); }
  void NextStep(int step) {
    driven_->sequence()->AppendToken(driven_->prompt().decode_ids[step]);
  }

  void Check() {
    ASSERT_TRUE(driven_->sequence()->FinishDecode().ok());
    for (const LayerFrame& frame : driven_->recorder.frames) {
      frames_[{frame.layer, frame.point, frame.stage, frame.step}] =
          RowsOf(frame);
    }
    ASSERT_EQ(frames_.size(), layers_.size() * 6 * 2 * (1 + kSteps));
    for (const auto& [place, rows] : frames_) {
      ASSERT_EQ(rows.heads, HeadsAt(place))
          << "layer " << place.layer << " point "
          << static_cast<int>(place.point) << " stage "
          << static_cast<int>(place.stage) << " step " << place.step;
    }
    std::vector<AppliedRule> reports;
    for (int layer : layers_) CheckLayer(layer, &reports);
    CheckReports(reports);
  }

 private:
  static Rows RowsOf(const LayerFrame& frame) {
    Rows rows(frame.shape[0], frame.shape[1], frame.shape[2]);
    const std::vector<float> values = Floats(frame.data);
    rows.values.assign(values.begin(), values.end());
    return rows;
  }

  struct Place {
    int layer;
    HookPoint point;
    Stage stage;
    int step;
    auto key() const { return std::tie(layer, point, stage, step); }
    bool operator<(const Place& other) const { return key() < other.key(); }
  };

  // Returns the number of heads that a frame must have: K and V keep the
  // model's KV heads until a rule that acts in this phase makes copies differ.
  int HeadsAt(const Place& place) const {
    const HookPoint point = place.point;
    const bool is_v = point == HookPoint::kV;
    const bool is_k = point == HookPoint::kK || point == HookPoint::kRotK;
    if (!is_v && !is_k) return kProductHeads;
    const Phase phase = place.step < 0 ? Phase::kPrefill : Phase::kDecode;
    for (const Combination& c : combinations_) {
      if (!c.copies_differ() || !c.ActsOn(is_v ? Qkv::kV : Qkv::kK) ||
          !Has(c.rule.phase, phase)) {
        continue;
      }
      const bool before_rope = c.rule.point == Rule::Point::kPreRope;
      const bool acts_here = is_v || before_rope == (point == HookPoint::kK);
      const bool acted_earlier = before_rope && point == HookPoint::kRotK;
      if (acted_earlier || (acts_here && place.stage == Stage::kAfter)) {
        return kProductHeads;
      }
    }
    return kProductKvHeads;
  }

  // Every tensor is expanded to the model's query heads.
  Rows Captured(const Place& place) const {
    return frames_.at(place).Expanded(kProductHeads);
  }

  void ExpectCaptured(const Place& place, const Rows& want) const {
    const Rows got = Captured(place);
    ASSERT_EQ(got.values.size(), want.values.size());
    for (size_t i = 0; i < want.values.size(); ++i) {
      ASSERT_TRUE(std::abs(got.values[i] - want.values[i]) <=
                  kTolerance * std::max(1.0, std::abs(want.values[i])))
          << "layer " << place.layer << " point "
          << static_cast<int>(place.point) << " stage "
          << static_cast<int>(place.stage) << " step " << place.step << " ["
          << i << "]: " << got.values[i] << " for " << want.values[i];
    }
  }

  // Applies the rules of `tensor` at a point to `used`, which attention reads,
  // and to `kept`, which the cache keeps.
  void RunRules(std::vector<RuleReference>* references, Qkv tensor, bool pre,
                const Rows& clean, int start, int step, Rows* used,
                Rows* kept) {
    for (size_t i = 0; i < rules_.size(); ++i) {
      const Rule& rule = rules_[i];
      const bool at_pre =
          rule.point == Rule::Point::kPreRope && tensor != Qkv::kV;
      if (at_pre != pre || std::find(rule.tensors.begin(), rule.tensors.end(),
                                     tensor) == rule.tensors.end()) {
        continue;
      }
      const Rows before = *used;
      (*references)[i].Run(clean, start, step, used);
      if (rule.kv_cache != Rule::KvCache::kPersist) continue;
      for (size_t j = 0; j < before.values.size(); ++j) {
        if (used->values[j] != before.values[j]) {
          kept->values[j] = used->values[j];
        }
      }
    }
  }

  // Returns a pass's rows of one tensor as attention reads them; `cache` has
  // the kept rows of all passes.
  Rows CheckTensor(int layer, Qkv tensor, int step,
                   std::vector<RuleReference>* references, Rows* cache) {
    const int start = step < 0 ? 0 : kPrompt + step;
    const std::vector<HookPoint> points =
        tensor == Qkv::kQ   ? std::vector{HookPoint::kQ, HookPoint::kRotQ}
        : tensor == Qkv::kK ? std::vector{HookPoint::kK, HookPoint::kRotK}
                            : std::vector{HookPoint::kV};
    Rows used = Captured({layer, points[0], Stage::kBefore, step});
    Rows kept = used;
    for (HookPoint point : points) {
      const bool before_rope = point == HookPoint::kQ || point == HookPoint::kK;
      if (!before_rope && tensor != Qkv::kV) {
        used = Rope(used, start, kTheta);
        kept = Rope(kept, start, kTheta);
      }
      ExpectCaptured({layer, point, Stage::kBefore, step}, used);
      // The reference chooses from the engine's own float32, so that no choice
      // depends on its rounding.
      const Rows clean = Captured({layer, point, Stage::kBefore, step});
      used = clean;
      RunRules(references, tensor, before_rope, clean, start, step, &used,
               &kept);
      ExpectCaptured({layer, point, Stage::kAfter, step}, used);
    }
    Rows all = *cache;
    all.Append(used);
    cache->Append(kept);
    return all;
  }

  void CheckLayer(int layer, std::vector<AppliedRule>* reports) {
    const Qkv tensors[] = {Qkv::kQ, Qkv::kK, Qkv::kV};
    std::map<Qkv, std::vector<RuleReference>> references;
    for (Qkv tensor : tensors) {
      for (size_t i = 0; i < rules_.size(); ++i) {
        references[tensor].emplace_back(rules_[i], static_cast<int>(i), layer,
                                        tensor, kProductHeads, kProductKvHeads);
      }
    }
    std::map<Qkv, Rows> caches;
    for (int step = -1; step < kSteps; ++step) {
      std::map<Qkv, Rows> seen;
      for (Qkv tensor : tensors) {
        seen[tensor] = CheckTensor(layer, tensor, step, &references[tensor],
                                   &caches[tensor]);
      }
      ExpectCaptured({layer, HookPoint::kZ, Stage::kBefore, step},
                     CausalAttention(Captured({layer, HookPoint::kRotQ,
                                               Stage::kAfter, step}),
                                     seen[Qkv::kK], seen[Qkv::kV],
                                     config_.layers[layer].attention.scale));
    }
    for (auto& [tensor, all] : references) {
      for (RuleReference& reference : all) {
        if (reference.reports().empty()) continue;
        reference.Finish();
        reports->insert(reports->end(), reference.reports().begin(),
                        reference.reports().end());
      }
    }
  }

  void CheckReports(const std::vector<AppliedRule>& want) {
    using Key = std::tuple<int, int, Qkv, Phase, int>;
    const auto key = [](const AppliedRule& a) -> Key {
      return {a.rule, a.layer, a.tensor, a.phase, a.step};
    };
    std::map<Key, const AppliedRule*> got;
    for (const AppliedRule& a : driven_->recorder.applied) got[key(a)] = &a;
    ASSERT_EQ(got.size(), driven_->recorder.applied.size());
    ASSERT_EQ(got.size(), want.size());
    for (const AppliedRule& w : want) {
      ASSERT_EQ(got.count(key(w)), 1u);
      const AppliedRule& g = *got[key(w)];
      ASSERT_EQ(g.phase, w.phase);
      ASSERT_EQ(g.replaced, w.replaced);
      ASSERT_EQ(g.chosen.size(), w.chosen.size());
      for (size_t i = 0; i < w.chosen.size(); ++i) {
        ASSERT_EQ(g.chosen[i].index, w.chosen[i].index);
        ASSERT_EQ(g.chosen[i].dims, w.chosen[i].dims);
        ASSERT_EQ(g.chosen[i].values.size(), w.chosen[i].values.size());
        for (size_t j = 0; j < w.chosen[i].values.size(); ++j) {
          ASSERT_NEAR(g.chosen[i].values[j], w.chosen[i].values[j], kTolerance);
        }
      }
    }
  }

  const std::vector<Combination> combinations_;
  std::vector<Rule> rules_;
  const std::vector<int> layers_;
  const ModelConfig& config_;
  std::unique_ptr<Driven> driven_;
  std::map<Place, Rows> frames_;
};

class RuleProductTest : public ::testing::TestWithParam<Choice> {
 protected:
  RuleProductTest()
      : backend_(CreateCpuBackend({})),
        model_(
            LoadGolden("tiny_llama_gqa", ComputeType::kF32, backend_.get())) {}

  // Runs and checks these arms' rules, many arms in one pass.
  template <typename Describe>
  void RunAll(const std::vector<std::vector<Combination>>& lists,
              const std::vector<int>& layers, Describe describe) {
    constexpr size_t kTogether = 256;
    for (size_t begin = 0; begin < lists.size(); begin += kTogether) {
      const size_t end = std::min(lists.size(), begin + kTogether);
      std::vector<std::unique_ptr<CheckedRun>> runs;
      std::vector<Driven*> batch;
      for (size_t i = begin; i < end; ++i) {
        runs.push_back(std::make_unique<CheckedRun>(model_, lists[i], layers));
        batch.push_back(runs.back()->driven());
      }
      RunPass(batch);
      for (int step = 0; step < kSteps; ++step) {
        for (auto& run : runs) run->NextStep(step);
        RunPass(batch);
      }
      for (size_t i = begin; i < end; ++i) {
        SCOPED_TRACE(describe(i));
        runs[i - begin]->Check();
        if (HasFailure()) return;
      }
    }
  }

  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
};

INSTANTIATE_TEST_SUITE_P(Choices, RuleProductTest,
                         ::testing::ValuesIn(kChoices));

std::vector<Combination> Accepted(Choice choice) {
  const std::vector<Refusal> refusals = Refusals();
  std::vector<Combination> accepted;
  for (const Combination& c : RuleProduct(choice, /*vision=*/false)) {
    if (RefusalOf(c, refusals) == nullptr) accepted.push_back(c);
  }
  return accepted;
}

TEST_P(RuleProductTest, WhatIsAcceptedEqualsTheReference) {
  const std::vector<Combination> accepted = Accepted(GetParam());
  ASSERT_GT(accepted.size(), 1000u);
  std::vector<std::vector<Combination>> lists;
  for (const Combination& c : accepted) lists.push_back({c});
  RunAll(lists, {1},
         [&](size_t i) { return ::testing::PrintToString(accepted[i]); });
}

// Returns the query heads of a tensor that a rule acts on, one bit each.
unsigned HeadsOf(const Combination& c, Qkv tensor) {
  if (!c.ActsOn(tensor)) return 0;
  if (c.rule.heads.empty()) return 0b1111;
  unsigned bits = 0;
  for (int head : c.rule.heads) {
    const bool by_query = tensor == Qkv::kQ || c.query_head();
    bits |= by_query ? 1u << head : 0b11u << (2 * head);
  }
  return bits;
}

bool Overlap(const Combination& a, const Combination& b) {
  for (Qkv tensor : {Qkv::kQ, Qkv::kK, Qkv::kV}) {
    if ((HeadsOf(a, tensor) & HeadsOf(b, tensor)) != 0) return true;
  }
  return false;
}

// Moves the rule from the last group, or KV head, to the first.
void MoveToFirstGroup(Combination* c) {
  const int by = c->rule.heads.front();
  for (int& head : c->rule.heads) head -= by;
  for (HeadDim& entry : c->rule.entries) entry.head -= by;
}

// Two rules of an arm share the layer's copies of K and V, whatever each would
// need alone.
TEST_P(RuleProductTest, TwoRulesOfAnArmEqualTheReference) {
  std::vector<Combination> all;
  for (Choice choice : kChoices) {
    for (const Combination& c : Accepted(choice)) all.push_back(c);
  }
  const std::vector<Combination> first = Accepted(GetParam());
  std::mt19937 random(static_cast<unsigned>(GetParam()));
  constexpr size_t kPairs = 500;
  std::vector<std::vector<Combination>> pairs;
  while (pairs.size() < kPairs) {
    Combination a = first[random() % first.size()];
    const Combination& b = all[random() % all.size()];
    if (a.heads == HeadChoice::kWholeGroup) MoveToFirstGroup(&a);
    if (Overlap(a, b)) continue;
    pairs.push_back({a, b});
  }
  RunAll(pairs, {0, 1},
         [&](size_t i) { return ::testing::PrintToString(pairs[i]); });
}

}  // namespace
}  // namespace qk::testing
