// Tests runs of a model in which one token's embedding has a NaN: the positions
// before that token are as in the healthy model, and nothing from there on
// looks like a result.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/engine/test_util.h"
#include "tests/poisoned_model.h"

namespace qk::testing {
namespace {

constexpr char kGolden[] = "tiny_llama_gqa";  // its lm_head is not tied
constexpr int kBad = 3;                       // the first bad position

class NonFiniteTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Model> Load(const std::string& path) {
    ModelOptions options;
    options.kv_cache_bytes = 4 << 20;
    return Model::Load(path, options, backend_.get()).value();
  }
  // A model in which the token's embedding has a NaN. It knows text.
  std::shared_ptr<const Model> PoisonedAt(int32_t token) {
    folders_.push_back(std::make_unique<TempFolder>());
    const std::string path =
        PoisonedModel(*folders_.back(), kGolden, "model.embed_tokens.weight",
                      int64_t{token} * healthy_->config().hidden_size);
    folders_.back()->Write("tokenizer.json",
                           ReadWhole(GoldenPath("tokenizer/gpt2.json")));
    return Load(path);
  }
  RunSpec Spec(std::vector<std::shared_ptr<const Model>> models) {
    RunSpec spec;
    spec.tokens = {3, 1, 41, 59, 26};
    spec.capture.off = true;
    for (auto& model : models) {
      spec.arms.push_back(
          {"arm" + std::to_string(spec.arms.size()), std::move(model), {}});
    }
    return spec;
  }

  const std::unique_ptr<Backend> backend_ = MakeTestBackend(1);
  const std::shared_ptr<const Model> healthy_ = Load(GoldenPath(kGolden));
  std::vector<std::unique_ptr<TempFolder>> folders_;
  const std::shared_ptr<const Model> poisoned_ = PoisonedAt(59);
};

TEST_F(NonFiniteTest, AComparisonHasNoKlAndNoTopToken) {
  for (const int baseline : {0, 1}) {
    RunSpec spec = Spec({poisoned_, healthy_});
    spec.baseline = baseline;
    const Recorder out = RunAlone(spec);
    RunSpec good_spec = Spec({healthy_});
    good_spec.baseline = 0;
    const Recorder good = RunAlone(good_spec);
    ASSERT_EQ(out.comparisons.size(), 2u);
    for (int arm : {0, 1}) {
      const ComparisonResult& result = out.comparisons[arm];
      const ComparisonResult& want = good.comparisons[0];
      for (int t = 0; t < 5; ++t) {
        SCOPED_TRACE(::testing::Message()
                     << baseline << " " << arm << " " << t);
        const bool bad = t >= kBad && (arm == 0 || baseline == 0);
        // The same bytes as the healthy model, so that KL is exactly 0.
        EXPECT_EQ(std::isnan(result.kl[t]), bad);
        if (!bad) {
          EXPECT_EQ(result.kl[t], 0.0f);
        }
        EXPECT_FALSE(result.top1_flip[t]);
        const bool own = t >= kBad && arm == 0;
        EXPECT_EQ(result.top1[t], own ? -1 : want.top1[t]);
        if (t + 1 == 5) continue;
        EXPECT_EQ(std::isnan(result.token_logprob[t + 1]), own);
        if (!own) {
          EXPECT_EQ(result.token_logprob[t + 1], want.token_logprob[t + 1]);
        }
      }
    }
  }
}

TEST_F(NonFiniteTest, LogitsAreNan) {
  RunSpec spec = Spec({poisoned_});
  spec.logits = LogitsSpec{4, {2, 3}};
  const Recorder out = RunAlone(spec);
  spec.arms[0].model = healthy_;
  const Recorder good = RunAlone(spec);
  const auto& logits = out.logits.at(0);
  ASSERT_EQ(logits.size(), 2u);
  EXPECT_EQ(logits[0].ids, good.logits.at(0)[0].ids);
  EXPECT_EQ(logits[0].logprobs, good.logits.at(0)[0].logprobs);
  ASSERT_EQ(logits[1].logprobs.size(), 4u);
  for (float logprob : logits[1].logprobs) EXPECT_TRUE(std::isnan(logprob));
}

TEST_F(NonFiniteTest, AScoreIsNanAndNotGreedy) {
  RunSpec spec = Spec({poisoned_});
  spec.score = Range{2, 5};
  const ScoreResult score = RunAlone(spec).scores.at(0);
  EXPECT_TRUE(std::isfinite(score.token_logprob[0]));
  EXPECT_TRUE(std::isfinite(score.token_logprob[1]));
  EXPECT_TRUE(std::isnan(score.token_logprob[2]));
  EXPECT_FALSE(score.greedy[2]);
  // Nor is token 0 greedy, which is what a row of NaNs would give.
  spec.tokens[4] = 0;
  EXPECT_FALSE(RunAlone(spec).scores.at(0).greedy[2]);
}

TEST_F(NonFiniteTest, AGenerationEndsWithoutAToken) {
  for (const double temperature : {0.0, 1.0}) {
    RunSpec spec = Spec({poisoned_, healthy_});
    spec.generate.emplace();
    spec.generate->max_new_tokens = 4;
    spec.generate->sampling.temperature = temperature;
    const Recorder out = RunAlone(spec);
    ASSERT_EQ(out.summaries.size(), 2u);
    EXPECT_EQ(out.summaries[0].stop_reason, "non_finite");
    EXPECT_EQ(out.summaries[0].generated_tokens, 0);
    EXPECT_EQ(out.summaries[1].stop_reason, "length");
    EXPECT_EQ(out.summaries[1].generated_tokens, 4);
    for (const TokenEvent& token : out.tokens) EXPECT_EQ(token.arm, 1);
  }
}

TEST_F(NonFiniteTest, AGenerationEndsAtTheFirstBadStep) {
  RunSpec spec = Spec({healthy_});
  spec.generate.emplace();
  spec.generate->max_new_tokens = 6;
  const Recorder good = RunAlone(spec);
  ASSERT_EQ(good.tokens.size(), 6u);
  const int32_t bad = good.tokens[0].id;
  for (int32_t token : spec.tokens) ASSERT_NE(token, bad);
  spec.arms[0].model = PoisonedAt(bad);
  const Recorder out = RunAlone(spec);
  ASSERT_EQ(out.tokens.size(), 1u);
  EXPECT_EQ(out.tokens[0].id, bad);
  EXPECT_EQ(out.summaries[0].generated_tokens, 1);
  EXPECT_EQ(out.summaries[0].stop_reason, "non_finite");

  // The only token may begin a stop string: its text is in no event.
  const std::string piece = spec.arms[0].model->tokenizer()->Piece(bad);
  ASSERT_FALSE(piece.empty());
  spec.generate->stop_strings = {piece + " and what never comes"};
  const Recorder held = RunAlone(spec);
  ASSERT_EQ(held.tokens.size(), 1u);
  EXPECT_EQ(held.tokens[0].text, "");
  EXPECT_EQ(held.summaries[0].stop_reason, "non_finite");
  EXPECT_EQ(held.summaries[0].text, piece);
}

}  // namespace
}  // namespace qk::testing
