// Compares SmolLM2-135M-Instruct, the real file, with transformers in float64
// (tests/goldens/make_smollm2_golden.py): norms, choices, comparisons.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "tests/engine/forward_driver.h"

namespace qk::testing {
namespace {

struct Tolerances {
  const char* name;
  ComputeType compute;
  double norm;          // relative to the norm, or to
  double norm_floor;    // this share of its head's mean if that is more
  double gap;           // of norms: a smaller one may be chosen either way
  double choices;       // share that may differ in spite of a larger gap
  double margin;        // of logits, as gap: for the top-1 id
  double kl;            // of one position: nats, plus this share of it
  double mean_kl;       // likewise
  double mean_logprob;  // nats
};

void PrintTo(const Tolerances& t, std::ostream* out) { *out << t.name; }

const Tolerances kTolerances[] = {
    {"f32", ComputeType::kF32, 1e-3, 0.01, 1e-4, 0, 1e-3, 1e-3, 1e-3, 1e-3},
    // bfloat16's error is a share of the head's size; a head's smallest norms,
    // at which bottom_k looks, are below that.
    {"bf16", ComputeType::kBF16, 0.3, 1.0, 0.1, 0.1, 0.5, 1.0, 0.1, 0.05},
};
const char* const kArms[] = {"clean", "top_k:1", "bottom_k:1"};
constexpr double kLambda = 5.0;

std::vector<double> Doubles(const JsonValue& array) {
  std::vector<double> values;
  EXPECT_TRUE(array
                  .ForEachElement([&](JsonValue e) -> absl::Status {
                    QK_ASSIGN_OR_RETURN(const double value, e.AsDouble());
                    values.push_back(value);
                    return absl::OkStatus();
                  })
                  .ok());
  return values;
}

// Returns the rows of an array of arrays.
std::vector<std::vector<double>> Rows(const JsonValue& array) {
  std::vector<std::vector<double>> rows;
  EXPECT_TRUE(array
                  .ForEachElement([&](JsonValue row) {
                    rows.push_back(Doubles(row));
                    return absl::OkStatus();
                  })
                  .ok());
  return rows;
}

class SmolLm2Test : public ::testing::TestWithParam<Tolerances> {
 protected:
  SmolLm2Test()
      : backend_(MakeTestBackend()),
        json_(ReadJson(GoldenPath("smollm2/golden.json"))) {}

  void SetUp() override {
    ModelOptions options;
    options.compute = GetParam().compute;
    options.kv_cache_bytes = 256 << 20;
    options.max_rows_per_pass = 1024;
    options.expected_sha256 =
        std::string(json_.root().GetString("gguf_sha256").value());
    auto model = Model::Load(QK_SMOLLM2_GGUF, options, backend_.get());
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  JsonValue Prompt(const std::string& name) const {
    return json_.root().Get("prompts").value().Get(name).value();
  }

  // Runs all arms of a prompt in one run.
  Recorder Run(const std::vector<int32_t>& ids) const {
    RunSpec spec;
    spec.tokens = ids;
    spec.arms.push_back({kArms[0], model_, {}});
    for (auto select :
         {DisruptionRule::Select::kTopK, DisruptionRule::Select::kBottomK}) {
      DisruptionRule rule;
      rule.select = select;
      rule.stat_span = rule.positions = {0, static_cast<int>(ids.size())};
      rule.layers.resize(model_->config().num_layers());
      std::iota(rule.layers.begin(), rule.layers.end(), 0);
      spec.arms.push_back({kArms[spec.arms.size()], model_, {rule}});
    }
    spec.capture.layers = spec.arms[1].rules[0].layers;
    spec.statistics.lambda = kLambda;
    spec.baseline = 0;
    return RunAlone(spec);
  }

  std::unique_ptr<Backend> backend_;
  JsonDocument json_;
  std::shared_ptr<const Model> model_;
};

// Checks norms (heads, 64) and the number of massive ones: a norm so close to
// the threshold that rounding decides may count or not.
void CheckFrame(const LayerFrame& frame, const std::vector<float>& want,
                const Tolerances& t, const std::string& name) {
  const std::vector<float> got = Floats(frame.data);
  ASSERT_EQ(got.size(), want.size()) << name;
  const double nmse = Nmse(got, want);  // the actual errors are far smaller
  EXPECT_TRUE(nmse <= 0.01 * t.norm * t.norm) << name << " NMSE " << nmse;
  int massive = 0, undecided = 0;
  for (size_t begin = 0; begin < want.size(); begin += 64) {
    const double mean =
        std::accumulate(want.begin() + begin, want.begin() + begin + 64, 0.0) /
        64;
    for (size_t i = begin; i < begin + 64; ++i) {
      const double scale = std::max<double>(want[i], t.norm_floor * mean);
      EXPECT_TRUE(std::abs(got[i] - want[i]) <= t.norm * scale)
          << name << " [" << i / 64 << ", " << i % 64 << "]: got " << got[i]
          << ", want " << want[i];
      const double over = want[i] / (kLambda * mean) - 1;
      undecided += std::abs(over) <= t.norm;
      massive += over > t.norm;
    }
  }
  ASSERT_TRUE(frame.statistics.has_value()) << name;
  EXPECT_GE(frame.statistics->massive_count, massive) << name;
  EXPECT_LE(frame.statistics->massive_count, massive + undecided) << name;
}

TEST_P(SmolLm2Test, NormsAndMassiveCounts) {
  const std::map<HookPoint, std::string> points = {
      {HookPoint::kRotQ, "hook_rot_q"},
      {HookPoint::kRotK, "hook_rot_k"},
      {HookPoint::kV, "hook_v"}};
  for (const std::string prompt : {"one", "demo", "long"}) {
    const Recorder recorder = Run(Ids(Prompt(prompt).Get("ids").value()));
    const auto golden =
        OpenSafetensors(GoldenPath("smollm2/" + prompt + ".safetensors"))
            .value();
    int frames = 0;
    for (const LayerFrame& frame : recorder.frames) {
      if (frame.arm != 0) continue;
      const std::string name =
          absl::StrCat("layer.", frame.layer, ".", points.at(frame.point));
      CheckFrame(frame, ReadTensor(*golden, name), GetParam(),
                 prompt + " " + name);
      ++frames;
    }
    EXPECT_EQ(frames, 30 * 3);
  }
}

// One dim is chosen per layer, tensor and head.
void CheckChoices(const JsonValue& arm, int arm_index,
                  const std::vector<AppliedRule>& applied, const Tolerances& t,
                  const std::string& name) {
  int compared = 0, differ = 0;
  std::string differing;
  for (const char* tensor : {"q", "k"}) {
    const auto dims = Rows(arm.Get(absl::StrCat(tensor, "_dims")).value());
    const auto gaps = Rows(arm.Get(absl::StrCat(tensor, "_gaps")).value());
    for (const AppliedRule& rule : applied) {
      if (rule.arm != arm_index ||
          rule.tensor != (tensor[0] == 'q' ? Qkv::kQ : Qkv::kK)) {
        continue;
      }
      ASSERT_EQ(rule.chosen.size(), dims[rule.layer].size()) << name;
      for (size_t head = 0; head < rule.chosen.size(); ++head) {
        ++compared;
        ASSERT_EQ(rule.chosen[head].dims.size(), 1u) << name;
        if (gaps[rule.layer][head] < t.gap ||
            rule.chosen[head].dims[0] == dims[rule.layer][head]) {
          continue;
        }
        ++differ;
        differing += absl::StrCat("\n", tensor, " layer ", rule.layer, " head ",
                                  head, ": got ", rule.chosen[head].dims[0],
                                  ", want ", dims[rule.layer][head], ", gap ",
                                  gaps[rule.layer][head]);
      }
    }
  }
  EXPECT_LE(differ, t.choices * compared) << name << differing;
  EXPECT_EQ(compared, 30 * (9 + 3)) << name;
}

TEST_P(SmolLm2Test, Choices) {
  for (const std::string prompt : {"one", "demo", "long"}) {
    const Recorder recorder = Run(Ids(Prompt(prompt).Get("ids").value()));
    const JsonValue arms = Prompt(prompt).Get("arms").value();
    for (int arm : {1, 2}) {
      CheckChoices(arms.Get(kArms[arm]).value(), arm, recorder.applied,
                   GetParam(), prompt + " " + kArms[arm]);
    }
  }
}

// Returns the mean over the positions that have a log-probability.
double Mean(const std::vector<float>& values, size_t first) {
  if (values.size() <= first) return 0;
  return std::accumulate(values.begin() + first, values.end(), 0.0) /
         static_cast<double>(values.size() - first);
}

void CheckComparison(const JsonValue& want, const ComparisonResult& got,
                     const Tolerances& t, const std::string& name) {
  const std::vector<double> kl = Doubles(want.Get("kl").value());
  ASSERT_EQ(got.kl.size(), kl.size()) << name;
  for (size_t i = 0; i < kl.size(); ++i) {
    EXPECT_TRUE(std::abs(got.kl[i] - kl[i]) <= t.kl * (1 + kl[i]))
        << name << " kl[" << i << "]: got " << got.kl[i] << ", want " << kl[i];
  }
  const double mean_kl = want.GetDouble("mean_kl").value();
  const double got_kl = Mean(got.kl, 0);
  EXPECT_TRUE(std::abs(got_kl - mean_kl) <= t.mean_kl * (1 + mean_kl))
      << name << " mean KL: got " << got_kl << ", want " << mean_kl;
  const double mean_logprob = want.GetDouble("mean_logprob").value();
  const double got_logprob = Mean(got.token_logprob, 1);
  EXPECT_TRUE(std::abs(got_logprob - mean_logprob) <= t.mean_logprob)
      << name << " mean log-probability: got " << got_logprob << ", want "
      << mean_logprob;
}

TEST_P(SmolLm2Test, Comparisons) {
  for (const std::string prompt : {"one", "demo", "long"}) {
    const JsonValue golden = Prompt(prompt);
    const Recorder recorder = Run(Ids(golden.Get("ids").value()));
    ASSERT_EQ(recorder.comparisons.size(), 3u);
    for (int arm = 0; arm < 3; ++arm) {
      CheckComparison(golden.Get("arms").value().Get(kArms[arm]).value(),
                      recorder.comparisons[arm], GetParam(),
                      prompt + " " + kArms[arm]);
    }
    const std::vector<int32_t> top1 = Ids(golden.Get("top1_id").value());
    const std::vector<double> margin = Doubles(golden.Get("margin").value());
    ASSERT_FALSE(top1.empty());
    ASSERT_EQ(margin.size(), top1.size());
    ASSERT_EQ(recorder.comparisons[0].top1.size(), top1.size());
    int decided = 0;
    for (size_t i = 0; i < top1.size(); ++i) {
      if (margin[i] <= GetParam().margin) continue;
      ++decided;
      EXPECT_EQ(recorder.comparisons[0].top1[i], top1[i])
          << prompt << " position " << i << ", margin " << margin[i];
    }
    EXPECT_GE(2 * decided, static_cast<int>(top1.size())) << prompt;
  }
}

TEST_P(SmolLm2Test, TokenizerGivesTheGoldensIds) {
  ASSERT_NE(model_->tokenizer(), nullptr);
  for (const std::string prompt : {"one", "demo", "long"}) {
    const auto tokens = model_->tokenizer()->Encode(
        Prompt(prompt).GetString("text").value(), {});
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    std::vector<int32_t> ids;
    for (const TokenSpan& token : *tokens) ids.push_back(token.id);
    EXPECT_EQ(ids, Ids(Prompt(prompt).Get("ids").value()));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SmolLm2Test, ::testing::ValuesIn(kTolerances),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace qk::testing
