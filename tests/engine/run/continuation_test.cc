// Scores continuations under rules. Each token's log-probability must be the
// one that a generation would give it: the float64 references of
// tests/goldens/make_disruption_goldens.py, whose decode steps have forced
// tokens.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/hooks/disruption_cases.h"

namespace qk::testing {
namespace {

constexpr int kSteps = 3;  // of the goldens' decode

// log softmax(logits)[token] in float64.
double LogProbability(const float* logits, int64_t vocab, int32_t token) {
  const double most = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(logits[i] - most);
  return logits[token] - most - std::log(sum);
}

int32_t Top(const float* logits, int64_t vocab) {
  return static_cast<int32_t>(std::max_element(logits, logits + vocab) -
                              logits);
}

class ContinuationTest : public DisruptionGoldenTest {
 protected:
  void RunCase(const JsonValue& c) {
    const std::string name(c.GetString("name").value());
    const GoldenPrompt prompt = PromptOf(c);
    const auto model = ModelOf(c);
    const int tokens = static_cast<int>(prompt.ids.size());
    // The rows whose logits the golden has: the prompt's last, and each step's.
    const std::vector<int32_t> rows = Ids(c.Get("rows").value());
    ASSERT_EQ(rows.back(), tokens - 1);
    const int64_t vocab = model->config().vocab_size;
    const std::vector<float> prefill = ReadTensor(*outputs_, name + "/prefill");
    const std::vector<float> decode = ReadTensor(*outputs_, name + "/decode");
    std::vector<float> logits(prefill.end() - vocab, prefill.end());
    logits.insert(logits.end(), decode.begin(), decode.end());
    ASSERT_EQ(logits.size(), static_cast<size_t>((1 + kSteps) * vocab));

    RunSpec spec;
    spec.tokens = prompt.ids;
    spec.continuation = prompt.decode_ids;
    // Nothing follows this token, so it may be any.
    spec.continuation.push_back(Top(logits.data() + kSteps * vocab, vocab));
    spec.arms = {
        {"arm", model, ReadRules(c, model->config().num_layers(), tokens)}};
    spec.capture.off = true;
    spec.score = Range{tokens, tokens + kSteps + 1};
    const Recorder recorder = RunAlone(spec);
    ASSERT_EQ(recorder.scores.size(), 1u) << name;
    const ScoreResult& score = recorder.scores[0];
    ASSERT_EQ(score.token_logprob.size(), 1u + kSteps);
    for (int i = 0; i <= kSteps; ++i) {
      const float* row = logits.data() + i * vocab;
      const double want = LogProbability(row, vocab, spec.continuation[i]);
      EXPECT_TRUE(std::abs(score.token_logprob[i] - want) < 2e-4)
          << name << " token " << i << ": " << score.token_logprob[i] << " for "
          << want;
      EXPECT_EQ(score.greedy[i], Top(row, vocab) == spec.continuation[i]);
    }
  }
};

TEST_F(ContinuationTest, EveryRulesScoresEqualTheReference) {
  ForEachCase([&](const JsonValue& c) { RunCase(c); });
}

}  // namespace
}  // namespace qk::testing
