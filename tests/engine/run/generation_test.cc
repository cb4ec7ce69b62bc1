// Generates where RoPE's scaling depends on the sequence's length: LongRoPE
// past the original context, dynamic NTK. The tokens are those of transformers'
// generate() in float64 (tests/goldens/make_generation_goldens.py).
#include <algorithm>
#include <numbers>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/engine/forward_driver.h"
#include "tests/temp_folder.h"

namespace qk::testing {
namespace {

using Rule = DisruptionRule;

struct GenerationCase {
  std::string name, model;
  std::vector<int32_t> ids, tokens, frozen;
  std::vector<double> logprobs;  // of the tokens
};

std::vector<GenerationCase> ReadCases() {
  const JsonDocument json = ReadJson(GoldenPath("generation/cases.json"));
  const auto outputs =
      OpenSafetensors(GoldenPath("generation/outputs.safetensors")).value();
  std::vector<GenerationCase> cases;
  const absl::Status status =
      json.root().GetArray("cases").value().ForEachElement(
          [&](JsonValue c) -> absl::Status {
            GenerationCase& one = cases.emplace_back();
            one.name = std::string(c.GetString("name").value());
            one.model = std::string(c.GetString("model").value());
            one.ids = Ids(c.Get("ids").value());
            one.tokens = Ids(c.Get("tokens").value());
            one.frozen = Ids(c.Get("frozen").value());
            const std::vector<float> logits =
                ReadTensor(*outputs, one.name + "/logits");
            const size_t vocab = logits.size() / one.tokens.size();
            for (size_t i = 0; i < one.tokens.size(); ++i) {
              double sum = 0;
              for (size_t j = 0; j < vocab; ++j) {
                sum += std::exp(double{logits[i * vocab + j]});
              }
              one.logprobs.push_back(logits[i * vocab + one.tokens[i]] -
                                     std::log(sum));
            }
            return absl::OkStatus();
          });
  EXPECT_TRUE(status.ok()) << status;
  return cases;
}

// A rule that changes nothing. It runs every decode row alone, as `reselect`
// must, or lets rows run together.
Rule Nothing(int prompt, bool row_by_row) {
  Rule rule;
  rule.k = 0;
  rule.stat_span = rule.positions = {0, prompt};
  rule.layers = {0, 1};
  if (row_by_row) {
    rule.phase = 3;
    rule.reselect = true;
  }
  return rule;
}

RunSpec SpecOf(const GenerationCase& c, std::shared_ptr<const Model> model) {
  RunSpec spec;
  spec.tokens = c.ids;
  const int prompt = static_cast<int>(c.ids.size());
  spec.arms = {{"clean", model, {}},
               {"together", model, {Nothing(prompt, false)}},
               {"row_by_row", model, {Nothing(prompt, true)}}};
  spec.capture.off = true;
  return spec;
}

TEST(GenerationTest, TokensAreThoseOfTransformers) {
  const auto backend = MakeTestBackend();
  int dropped_caches = 0;
  for (const GenerationCase& c : ReadCases()) {
    const auto model = LoadGolden(c.model, ComputeType::kF32, backend.get());
    RunSpec spec = SpecOf(c, model);
    spec.generate.emplace();
    spec.generate->max_new_tokens = static_cast<int>(c.tokens.size());
    const Recorder recorder = RunAlone(spec);
    ASSERT_EQ(recorder.tokens.size(), spec.arms.size() * c.tokens.size());
    for (const TokenEvent& token : recorder.tokens) {
      SCOPED_TRACE(absl::StrCat(c.name, " ", spec.arms[token.arm].name,
                                " token ", token.step));
      EXPECT_EQ(token.id, c.tokens[token.step]);
      EXPECT_TRUE(std::abs(token.logprob - c.logprobs[token.step]) < 2e-4)
          << token.logprob << " for " << c.logprobs[token.step];
    }
    if (c.tokens != c.frozen) ++dropped_caches;
  }
  EXPECT_GE(dropped_caches, 6);
}

// A disrupted arm scores what a generation would give. Here the rules change
// nothing, so the values are transformers'.
TEST(GenerationTest, ScoresOfDisruptedArmsAreThoseOfAGeneration) {
  const auto backend = MakeTestBackend();
  for (const GenerationCase& c : ReadCases()) {
    const auto model = LoadGolden(c.model, ComputeType::kF32, backend.get());
    RunSpec spec = SpecOf(c, model);
    spec.arms.erase(spec.arms.begin());
    spec.continuation = c.tokens;
    const int prompt = static_cast<int>(c.ids.size());
    spec.score = Range{prompt, prompt + static_cast<int>(c.tokens.size())};
    const Recorder recorder = RunAlone(spec);
    ASSERT_EQ(recorder.scores.size(), 2u);
    for (const ScoreResult& score : recorder.scores) {
      SCOPED_TRACE(absl::StrCat(c.name, " ", spec.arms[score.arm].name));
      ASSERT_EQ(score.token_logprob.size(), c.logprobs.size());
      for (size_t i = 0; i < c.logprobs.size(); ++i) {
        EXPECT_TRUE(std::abs(score.token_logprob[i] - c.logprobs[i]) < 2e-4)
            << i << ": " << score.token_logprob[i] << " for " << c.logprobs[i];
        EXPECT_TRUE(score.greedy[i]);
      }
    }
  }
}

// Every row that a sequence has once must be captured once, although rows run
// again past the original context.
TEST(GenerationTest, RecomputedRowsAreNotCapturedAgain) {
  const auto backend = MakeTestBackend();
  const auto model =
      LoadGolden("tiny_phi3_longrope", ComputeType::kF32, backend.get());
  const GenerationCase c = ReadCases()[1];  // 26 tokens, then 12
  ASSERT_EQ(c.name, "tiny_phi3_longrope/26");
  RunSpec spec = SpecOf(c, model);
  Rule rule = Nothing(26, true);
  rule.k = 2;
  rule.axis = Rule::Axis::kPerToken;
  rule.reselect = false;
  Rule reused = Nothing(26, false);
  reused.k = 3;
  reused.phase = 3;
  spec.arms = {{"per_token", model, {rule}}, {"reused", model, {reused}}};
  spec.capture = CaptureAll(model->config());
  spec.generate.emplace();
  spec.generate->max_new_tokens = 12;
  spec.baseline = 0;
  const Recorder recorder = RunAlone(spec);
  // Layers, points, arms, passes: the last token is not run.
  EXPECT_EQ(recorder.frames.size(), 2u * 6 * 2 * (1 + 11));
  EXPECT_EQ(recorder.comparisons.size(), 2u);
  int64_t per_token = 0, reported = 0;
  std::vector<int64_t> replaced(2);
  for (const AppliedRule& applied : recorder.applied) {
    if (applied.arm == 0) {
      per_token += static_cast<int64_t>(applied.chosen.size());
    } else {
      replaced[applied.phase == Phase::kDecode] += applied.replaced;
      reported += applied.step >= 0;
    }
  }
  // Rows, layers, Q and K.
  EXPECT_EQ(per_token, (26 + 11) * 2 * 2);
  EXPECT_EQ(reported, 0);
  // 2 heads of Q and 1 of K, 3 dims each, in 2 layers.
  EXPECT_EQ(replaced[0], 26 * 3 * 3 * 2);
  EXPECT_EQ(replaced[1], 11 * 3 * 3 * 2);
}

// --- rules of a sequence that grows past the original context

// The golden model with another rope_scaling: `short_factor` and `original`
// replaced, and the attention factor of the golden's own.
std::shared_ptr<const Model> WithRope(const TempFolder& folder,
                                      const std::string& short_factor,
                                      int original, double attention_factor,
                                      Backend* backend) {
  const std::string golden = GoldenPath("tiny_phi3_longrope");
  auto config = MappedFile::Open(golden + "/config.json");
  EXPECT_TRUE(config.ok());
  std::string text((*config)->text());
  if (!short_factor.empty()) {
    const size_t begin = text.find("\"short_factor\": [");
    EXPECT_NE(begin, std::string::npos);
    text.replace(begin, text.find(']', begin) + 1 - begin,
                 absl::StrCat("\"short_factor\": ", short_factor));
  }
  text = absl::StrReplaceAll(
      text,
      {{"\"rope_scaling\": {",
        absl::StrCat("\"rope_scaling\": {\"attention_factor\": ",
                     attention_factor, ",")},
       {"\"original_max_position_embeddings\": 32",
        absl::StrCat("\"original_max_position_embeddings\": ", original)}});
  folder.Write("config.json", text);
  auto weights = MappedFile::Open(golden + "/model.safetensors");
  EXPECT_TRUE(weights.ok());
  folder.Write("model.safetensors", std::string((*weights)->text()));
  ModelOptions options;
  options.kv_cache_bytes = 64 << 20;
  auto model = Model::Load(folder.path(), options, backend);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *model : nullptr;
}

std::vector<Rule> RulesToTry(int prompt) {
  Rule base;
  base.k = 3;
  base.stat_span = {1, prompt};
  base.positions = {0, prompt - 1};
  base.layers = {0, 1};
  std::vector<Rule> rules;
  for (const Rule::Axis axis : {Rule::Axis::kPerHead, Rule::Axis::kPerToken}) {
    for (const Rule::KvCache cache :
         {Rule::KvCache::kPersist, Rule::KvCache::kAttentionOnly}) {
      for (PhaseSet phase = 1; phase <= 3; ++phase) {
        for (const bool reselect : {false, true}) {
          Rule& rule = rules.emplace_back(base);
          rule.axis = axis;
          rule.kv_cache = cache;
          rule.phase = phase;
          rule.reselect = reselect;
        }
      }
    }
  }
  Rule& random = rules.emplace_back(base);
  random.select = Rule::Select::kRandomK;
  random.phase = 3;
  random.kv_grouping = Rule::KvGrouping::kQueryHead;
  random.kv_cache = Rule::KvCache::kAttentionOnly;
  return rules;
}

// Past the original context, a sequence is one whose prompt and tokens have had
// the long frequencies from the start; before it, one with the short ones. Two
// models that never change their frequencies give these.
TEST(GenerationTest, RulesActOnRecomputedRowsAsOnOthers) {
  const std::string long_factors =
      "[1.05, 1.3, 2.0, 3.5, 6.0, 8.0, 11.0, 15.0]";
  constexpr double kAttention = 1.2;
  const auto backend = MakeTestBackend();
  const TempFolder folders[3];
  const auto model = WithRope(folders[0], "", 32, kAttention, backend.get());
  const auto only_short =
      WithRope(folders[1], "", 200, kAttention, backend.get());
  const auto only_long =
      WithRope(folders[2], long_factors, 200, kAttention, backend.get());
  ASSERT_NE(only_long, nullptr);
  const GenerationCase c = ReadCases()[1];
  const int prompt = static_cast<int>(c.ids.size());
  const auto score = [&](std::shared_ptr<const Model> of) {
    RunSpec spec;
    spec.tokens = c.ids;
    spec.continuation = c.tokens;
    for (const Rule& rule : RulesToTry(prompt)) {
      spec.arms.push_back({absl::StrCat(spec.arms.size()), of, {rule}});
    }
    spec.capture.off = true;
    spec.score = Range{prompt, prompt + static_cast<int>(c.tokens.size())};
    std::vector<ScoreResult> results = RunAlone(spec).scores;
    std::sort(results.begin(), results.end(),
              [](const ScoreResult& a, const ScoreResult& b) {
                return a.arm < b.arm;
              });
    return results;
  };
  const auto got = score(model), before = score(only_short),
             after = score(only_long);
  ASSERT_EQ(got.size(), 25u);
  ASSERT_EQ(before.size(), got.size());
  ASSERT_EQ(after.size(), got.size());
  double least_difference = 1;
  for (size_t arm = 0; arm < got.size(); ++arm) {
    for (size_t i = 0; i < c.tokens.size(); ++i) {
      // Token i follows prompt + i positions.
      const bool grown = prompt + static_cast<int>(i) > 32;
      const float want = (grown ? after : before)[arm].token_logprob[i];
      const float other = (grown ? before : after)[arm].token_logprob[i];
      EXPECT_TRUE(std::abs(got[arm].token_logprob[i] - want) < 1e-5)
          << "arm " << arm << " token " << i << ": "
          << got[arm].token_logprob[i] << " for " << want;
      least_difference =
          std::min<double>(least_difference, std::abs(other - want));
    }
  }
  EXPECT_GT(least_difference, 1e-5);
}

// --- wavelengths

// The frequencies that transformers used in each pass are in the goldens.
TEST(WavelengthTest, IsThatOfThePass) {
  const auto backend = MakeTestBackend();
  for (const std::string name : {"tiny_phi3_longrope", "tiny_llama_dynamic"}) {
    const auto model = LoadGolden(name, ComputeType::kF32, backend.get());
    const JsonDocument json = ReadJson(GoldenPath(name + "/golden.json"));
    const JsonValue frequencies =
        json.root().Get("notes").value().Get("frequencies").value();
    for (const std::string prompt : {"p0", "p1"}) {
      CaptureSpec capture = CaptureAll(model->config());
      capture.points = {HookPoint::kQ, HookPoint::kRotQ, HookPoint::kRotK};
      capture.form = CaptureForm::kNormOverTokens;
      Driven driven(
          model,
          ReadPrompt(json.root().Get("prompts").value().Get(prompt).value()),
          {}, capture);
      RunPass({&driven});
      for (int step = 0; step < 3; ++step) {
        driven.sequence()->AppendToken(driven.prompt().decode_ids[step]);
        RunPass({&driven});
      }
      ASSERT_TRUE(driven.sequence()->FinishDecode().ok());
      ASSERT_EQ(driven.recorder.frames.size(), 2u * 3 * 2);
      for (const LayerFrame& frame : driven.recorder.frames) {
        // Norms over all decode steps have the last step's.
        const std::string pass =
            frame.phase == Phase::kPrefill ? "/prefill" : "/decode.2";
        std::vector<double> used;
        ASSERT_TRUE(frequencies.GetArray(prompt + pass)
                        .value()
                        .ForEachElement([&](JsonValue v) -> absl::Status {
                          used.push_back(v.AsDouble().value());
                          return absl::OkStatus();
                        })
                        .ok());
        const MassiveEntry& entry = frame.statistics->largest;
        ASSERT_TRUE(entry.wavelength.has_value());
        const double want =
            2 * std::numbers::pi / used[entry.dim % used.size()];
        EXPECT_TRUE(std::abs(*entry.wavelength / want - 1) < 1e-5)
            << name << " " << prompt << pass << ": " << *entry.wavelength
            << " for " << want;
      }
    }
  }
}

}  // namespace
}  // namespace qk::testing
