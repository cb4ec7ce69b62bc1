// Captures an arm whose rule makes the query heads of a group read different K
// (the control of the preset rope_with_llm/mistral). What the rule has not
// touched has the model's KV heads and the clean arm's values; K after it has a
// head per query head. The values come from float64 references.
#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "tests/engine/forward_driver.h"
#include "tests/engine/hooks/rule_reference.h"

namespace qk::testing {
namespace {

constexpr int kHeads = 4, kKvHeads = 2, kDims = 8;  // of tiny_llama_gqa
constexpr int kTokens = 8, kNewTokens = 4;
constexpr int kClean = 0, kControl = 1;

using Key = std::tuple<int, int, HookPoint, Stage, Phase>;  // arm, layer, ...

class QueryHeadCaptureTest : public ::testing::Test {
 protected:
  QueryHeadCaptureTest()
      : backend_(MakeTestBackend()),
        model_(
            LoadGolden("tiny_llama_gqa", ComputeType::kF32, backend_.get())) {
    rule_.select = DisruptionRule::Select::kRandomK;
    rule_.seed = 5;
    rule_.kv_grouping = DisruptionRule::KvGrouping::kQueryHead;
    rule_.kv_cache = DisruptionRule::KvCache::kAttentionOnly;
    rule_.stat_span = rule_.positions = {0, kTokens};
    rule_.layers = {0, 1};
  }

  // Runs the clean arm and the control. Only one frame has each key.
  std::map<Key, LayerFrame> Run(CaptureForm form, std::vector<int> heads) {
    RunSpec spec;
    spec.tokens = {1, 28, 23, 85, 12, 92, 6, 57};
    spec.arms = {{"clean", model_, {}}, {"control", model_, {rule_}}};
    spec.capture = CaptureAll(model_->config());
    spec.capture.form = form;
    spec.capture.stage = 3;
    spec.capture.heads = std::move(heads);
    spec.capture.phase = form == CaptureForm::kNormOverTokens ? 3 : 1;
    spec.generate.emplace();
    spec.generate->max_new_tokens = kNewTokens;
    std::map<Key, LayerFrame> frames;
    for (LayerFrame& f : RunAlone(spec).frames) {
      const Key key = {f.arm, f.layer, f.point, f.stage, f.phase};
      EXPECT_FALSE(frames.contains(key));
      frames[key] = std::move(f);
    }
    return frames;
  }

  Rows RawOf(const LayerFrame& frame) {
    Rows rows(frame.shape[0], frame.shape[1], frame.shape[2]);
    const std::vector<float> values = Floats(frame.data);
    rows.values.assign(values.begin(), values.end());
    return rows;
  }

  // K of the control's first layer after the rule, by the reference.
  Rows DisruptedK() {
    const auto raw = Run(CaptureForm::kRaw, {});
    Rows k = RawOf(raw.at({kClean, 0, HookPoint::kRotK, Stage::kBefore,
                           Phase::kPrefill}))
                 .Expanded(kHeads);
    RuleReference reference(rule_, 0, 0, Qkv::kK, kHeads, kKvHeads);
    const Rows clean = k;
    reference.Run(clean, 0, -1, &k);
    return k;
  }

  DisruptionRule rule_;
  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
};

bool IsKv(HookPoint point) {
  return point == HookPoint::kK || point == HookPoint::kRotK ||
         point == HookPoint::kV;
}

// The heads of a frame if the capture lists `wanted` query heads; empty: all.
std::vector<int> ExpectedHeads(const std::vector<int>& wanted, int heads) {
  std::vector<int> out;
  for (int h = 0; h < heads; ++h) {
    bool chosen = wanted.empty();
    for (int q : wanted) chosen = chosen || q / (kHeads / heads) == h;
    if (chosen) out.push_back(h);
  }
  return out;
}

TEST_F(QueryHeadCaptureTest, OnlyWhatTheRuleChangedHasQueryHeads) {
  for (const CaptureForm form :
       {CaptureForm::kNormOverTokens, CaptureForm::kNormPerToken,
        CaptureForm::kRaw}) {
    for (const std::vector<int>& wanted :
         {std::vector<int>{}, {1, 2}, {3}, {0, 1}}) {
      const auto frames = Run(form, wanted);
      ASSERT_EQ(
          frames.size(),
          2u * 2 * 6 * 2 * (form == CaptureForm::kNormOverTokens ? 2 : 1));
      for (const auto& [key, frame] : frames) {
        const auto& [arm, layer, point, stage, phase] = key;
        const bool differs = arm == kControl && point == HookPoint::kRotK &&
                             stage == Stage::kAfter && phase == Phase::kPrefill;
        const int heads = IsKv(point) && !differs ? kKvHeads : kHeads;
        EXPECT_EQ(frame.heads, ExpectedHeads(wanted, heads));
        EXPECT_EQ(frame.group_size, kHeads / heads);
        const size_t axis = form == CaptureForm::kNormOverTokens ? 0 : 1;
        EXPECT_EQ(frame.shape[axis], static_cast<int>(frame.heads.size()));
      }
    }
  }
}

TEST_F(QueryHeadCaptureTest, ValuesBeforeTheRuleAreTheCleanArms) {
  for (const CaptureForm form :
       {CaptureForm::kNormOverTokens, CaptureForm::kNormPerToken,
        CaptureForm::kRaw}) {
    for (const std::vector<int>& wanted : {std::vector<int>{}, {1, 2}}) {
      const auto frames = Run(form, wanted);
      // Both arms give the first layer the same input.
      for (HookPoint point : {HookPoint::kQ, HookPoint::kK, HookPoint::kV,
                              HookPoint::kRotQ, HookPoint::kRotK}) {
        const Phase phase = Phase::kPrefill;
        const LayerFrame& clean =
            frames.at({kClean, 0, point, Stage::kBefore, phase});
        EXPECT_FALSE(clean.data.empty());
        EXPECT_EQ(frames.at({kControl, 0, point, Stage::kBefore, phase}).data,
                  clean.data)
            << static_cast<int>(point);
      }
      EXPECT_EQ(
          frames
              .at({kControl, 0, HookPoint::kV, Stage::kAfter, Phase::kPrefill})
              .data,
          frames.at({kClean, 0, HookPoint::kV, Stage::kBefore, Phase::kPrefill})
              .data);
    }
  }
}

TEST_F(QueryHeadCaptureTest, ValuesAfterTheRuleEqualTheReference) {
  const Rows k = DisruptedK();
  const std::vector<int> wanted = {1, 2};
  for (const CaptureForm form :
       {CaptureForm::kNormOverTokens, CaptureForm::kNormPerToken,
        CaptureForm::kRaw}) {
    const auto frames = Run(form, wanted);
    std::vector<float> want;
    for (int t = 0; t < kTokens; ++t) {
      for (int h : wanted) {
        double square = 0;
        for (int d = 0; d < kDims; ++d) {
          square += k.at(t, h, d) * k.at(t, h, d);
          if (form == CaptureForm::kRaw) {
            want.push_back(static_cast<float>(k.at(t, h, d)));
          }
        }
        if (form == CaptureForm::kNormPerToken) {
          want.push_back(static_cast<float>(std::sqrt(square)));
        }
      }
    }
    for (int h : wanted) {
      if (form != CaptureForm::kNormOverTokens) break;
      for (int d = 0; d < kDims; ++d) {
        double square = 0;
        for (int t = 0; t < kTokens; ++t) {
          square += k.at(t, h, d) * k.at(t, h, d);
        }
        want.push_back(static_cast<float>(std::sqrt(square)));
      }
    }
    const LayerFrame& frame = frames.at(
        {kControl, 0, HookPoint::kRotK, Stage::kAfter, Phase::kPrefill});
    EXPECT_LE(Nmse(Floats(frame.data), want), 1e-12);
  }
}

// Massive entries are counted, and named, in the heads of the frame.
TEST_F(QueryHeadCaptureTest, StatisticsCountTheHeadsOfTheFrame) {
  const Rows k = DisruptedK();
  const auto frames = Run(CaptureForm::kNormOverTokens, {});
  const LayerFrame& frame = frames.at(
      {kControl, 0, HookPoint::kRotK, Stage::kAfter, Phase::kPrefill});
  double ratio = 0;
  int head = -1, dim = -1;
  for (int h = 0; h < kHeads; ++h) {
    std::vector<double> norms(kDims);
    double mean = 0;
    for (int d = 0; d < kDims; ++d) {
      for (int t = 0; t < kTokens; ++t) {
        norms[d] += k.at(t, h, d) * k.at(t, h, d);
      }
      norms[d] = std::sqrt(norms[d]);
      mean += norms[d] / kDims;
    }
    for (int d = 0; d < kDims; ++d) {
      if (norms[d] / mean <= ratio) continue;
      ratio = norms[d] / mean;
      head = h;
      dim = d;
    }
  }
  ASSERT_TRUE(frame.statistics.has_value());
  EXPECT_EQ(frame.statistics->largest.head, head);
  EXPECT_EQ(frame.statistics->largest.dim, dim);
  EXPECT_NEAR(frame.statistics->largest.ratio, ratio, 1e-5);
}

}  // namespace
}  // namespace qk::testing
