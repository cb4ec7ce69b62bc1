// Compares every kind of rule and every preset with plain float64 references
// (tests/goldens/make_disruption_goldens.py): logits of prefill and three
// decode steps, chosen dims and written values.
#include <algorithm>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "tests/engine/hooks/disruption_cases.h"

namespace qk::testing {
namespace {

using Rule = DisruptionRule;

constexpr int kSteps = 3;  // of the goldens' decode

std::vector<double> Doubles(const JsonValue& array) {
  std::vector<double> out;
  const auto status = array.ForEachElement([&](JsonValue v) -> absl::Status {
    out.push_back(v.AsDouble().value());
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

// Returns the golden's dims and values for one head or position. The golden has
// a single 0 for all dims that ZERO writes.
AppliedDims ReadChosen(const JsonValue& json, const Rule& rule) {
  AppliedDims chosen;
  chosen.index = static_cast<int>(json.GetInt64("index").value());
  const std::vector<int32_t> dims = Ids(json.Get("dims").value());
  chosen.dims.assign(dims.begin(), dims.end());
  const std::vector<double> values = Doubles(json.Get("values").value());
  chosen.values.assign(values.begin(), values.end());
  if (rule.replace == Rule::Replace::kZero) {
    chosen.values.assign(dims.size(), 0.0f);
  }
  return chosen;
}

// Returns how many rows of a pass the rule writes.
int64_t RowsWritten(const Rule& rule, int step) {
  if (step >= 0) return rule.phase & 2 ? 1 : 0;
  return rule.phase & 1 ? rule.positions.end - rule.positions.begin : 0;
}

int64_t HeadsOf(const Rule& rule, Qkv tensor, const AttentionConfig& config) {
  if (!rule.heads.empty()) return static_cast<int64_t>(rule.heads.size());
  const bool query_heads =
      tensor == Qkv::kQ || rule.kv_grouping == Rule::KvGrouping::kQueryHead;
  return query_heads ? config.num_heads : config.num_kv_heads;
}

// Compares one of the engine's reports with the golden's.
void CheckReport(const JsonValue& expected, const Rule& rule,
                 const AttentionConfig& config, const AppliedRule& report) {
  std::vector<AppliedDims> want;
  ASSERT_TRUE(expected.GetArray("chosen")
                  .value()
                  .ForEachElement([&](JsonValue c) -> absl::Status {
                    want.push_back(ReadChosen(c, rule));
                    return absl::OkStatus();
                  })
                  .ok());
  ASSERT_FALSE(want.empty());
  ASSERT_EQ(report.chosen.size(), want.size());
  int64_t dims = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const AppliedDims& got = report.chosen[i];
    SCOPED_TRACE(absl::StrCat("index ", want[i].index));
    EXPECT_EQ(got.index, want[i].index);
    EXPECT_EQ(got.dims, want[i].dims);
    dims += static_cast<int64_t>(want[i].dims.size());
    ASSERT_EQ(got.values.size(), want[i].values.size());
    for (size_t j = 0; j < got.values.size(); ++j) {
      const double value = want[i].values[j];
      EXPECT_TRUE(std::abs(got.values[j] - value) <=
                  1e-4 * std::max(1.0, std::abs(value)))
          << got.values[j] << " for " << value;
    }
  }
  // Per token, `dims` already sums over the rows, but not over the heads.
  const int64_t times = rule.axis == Rule::Axis::kPerHead
                            ? RowsWritten(rule, report.step)
                            : HeadsOf(rule, report.tensor, config);
  EXPECT_EQ(report.replaced, dims * times);
}

// Compares the golden's list of choices with the engine's reports: there must
// be one report for each entry, and no other.
void CheckApplied(const JsonValue& expected, const std::vector<Rule>& rules,
                  const AttentionConfig& config,
                  const std::vector<AppliedRule>& applied) {
  using Key = std::tuple<int, int, Qkv, int>;  // rule, layer, tensor, step
  std::map<Key, const AppliedRule*> reports;
  for (const AppliedRule& report : applied) {
    const bool prefill = report.step == -1;
    EXPECT_EQ(report.phase, prefill ? Phase::kPrefill : Phase::kDecode);
    EXPECT_EQ(report.arm, 0);
    EXPECT_EQ(report.image, -1);
    reports[{report.rule, report.layer, report.tensor, report.step}] = &report;
  }
  EXPECT_EQ(reports.size(), applied.size()) << "two of one thing";
  EXPECT_EQ(applied.size(), expected.size());
  const auto status = expected.ForEachElement([&](JsonValue e) -> absl::Status {
    const int rule = static_cast<int>(e.GetInt64("rule").value());
    const int layer = static_cast<int>(e.GetInt64("layer").value());
    const Qkv tensor = TensorFrom(e.GetString("tensor").value());
    const int step = e.Find("step").has_value()
                         ? static_cast<int>(e.GetInt64("step").value())
                         : -1;
    SCOPED_TRACE(absl::StrCat("rule ", rule, " layer ", layer, " step ", step));
    const auto it = reports.find({rule, layer, tensor, step});
    if (it == reports.end()) {
      ADD_FAILURE() << "nothing was reported";
    } else {
      CheckReport(e, rules[rule], config, *it->second);
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

// A rule that reuses the prompt's choice in decode reports all steps at once.
// Compares these reports with the golden's choice, and removes them.
void CheckDecodeTotals(const JsonValue& expected,
                       const std::vector<Rule>& rules, Recorder* recorder) {
  using Key = std::tuple<int, int, Qkv>;  // rule, layer, tensor
  std::map<Key, int64_t> want, got;
  const auto status = expected.ForEachElement([&](JsonValue e) -> absl::Status {
    const int index = static_cast<int>(e.GetInt64("rule").value());
    const Rule& rule = rules[index];
    if (e.Find("step").has_value() || rule.reselect ||
        rule.axis == Rule::Axis::kPerToken ||
        !Has(rule.phase, Phase::kDecode)) {
      return absl::OkStatus();
    }
    const Key key = {index, static_cast<int>(e.GetInt64("layer").value()),
                     TensorFrom(e.GetString("tensor").value())};
    int64_t& values = want[key];
    return e.GetArray("chosen").value().ForEachElement(
        [&](JsonValue c) -> absl::Status {
          values += kSteps * c.GetArray("dims").value().size();
          return absl::OkStatus();
        });
  });
  EXPECT_TRUE(status.ok()) << status;
  const auto is_total = [](const AppliedRule& applied) {
    return applied.phase == Phase::kDecode && applied.step == -1;
  };
  for (const AppliedRule& applied : recorder->applied) {
    if (!is_total(applied)) continue;
    EXPECT_TRUE(applied.chosen.empty());
    got[{applied.rule, applied.layer, applied.tensor}] += applied.replaced;
  }
  EXPECT_EQ(got, want);
  std::erase_if(recorder->applied, is_total);
}

class DisruptionTest : public DisruptionGoldenTest {
 protected:
  void RunCase(const JsonValue& c) {
    const std::string name(c.GetString("name").value());
    const auto model = ModelOf(c);
    const GoldenPrompt prompt = PromptOf(c);
    const std::vector<Rule> rules = ReadRules(
        c, model->config().num_layers(), static_cast<int>(prompt.ids.size()));
    CaptureSpec off;
    off.off = true;
    Driven driven(model, prompt, rules, off);
    driven.Request(Ids(c.Get("rows").value()));
    RunPass({&driven});
    EXPECT_LE(Nmse(driven.Logits(), ReadTensor(*outputs_, name + "/prefill")),
              1e-10)
        << name;
    std::vector<float> decode;
    for (int step = 0; step < kSteps; ++step) {
      driven.sequence()->AppendToken(prompt.decode_ids[step]);
      driven.Request({static_cast<int>(prompt.ids.size()) + step});
      RunPass({&driven});
      const std::vector<float> row = driven.Logits();
      decode.insert(decode.end(), row.begin(), row.end());
    }
    EXPECT_LE(Nmse(decode, ReadTensor(*outputs_, name + "/decode")), 1e-10)
        << name;
    SCOPED_TRACE(name);
    ASSERT_TRUE(driven.sequence()->FinishDecode().ok());
    CheckDecodeTotals(c.Get("applied").value(), rules, &driven.recorder);
    CheckApplied(c.Get("applied").value(), rules,
                 model->config().layers[0].attention, driven.recorder.applied);
  }
};

TEST_F(DisruptionTest, EveryCaseEqualsTheReference) {
  ForEachCase([&](const JsonValue& c) { RunCase(c); });
}

TEST_F(DisruptionTest, NothingChosenChangesNoBit) {
  const auto model = ModelNamed("tiny_llama_gqa");
  RunSpec spec;
  spec.tokens = {1, 28, 23, 85, 12, 92, 6, 57};
  Rule rule;
  rule.k = 0;
  rule.stat_span = rule.positions = {0, 8};
  rule.layers = {0, 1};
  spec.arms = {{"clean", model, {}}, {"nothing", model, {rule}}};
  spec.capture = CaptureAll(model->config());
  spec.capture.stage = 3;
  spec.baseline = 0;
  const Recorder recorder = RunAlone(spec);
  std::map<std::tuple<int, int, int>, std::string> clean;
  int compared = 0;
  for (const LayerFrame& f : recorder.frames) {
    const std::tuple<int, int, int> key = {f.layer, static_cast<int>(f.point),
                                           static_cast<int>(f.stage)};
    if (f.arm == 0) {
      clean[key] = f.data;
    } else {
      EXPECT_FALSE(f.data.empty());
      EXPECT_EQ(f.data, clean[key]);
      ++compared;
    }
  }
  EXPECT_EQ(compared, 2 * 6 * 2);
  ASSERT_EQ(recorder.comparisons.size(), 2u);
  EXPECT_EQ(recorder.comparisons[1].kl, std::vector<float>(8, 0.0f));
}

TEST_F(DisruptionTest, AllDimsAndMeanLeaveNoVariance) {
  const auto model = ModelNamed("tiny_llama_gqa");
  RunSpec spec;
  spec.tokens = {1, 28, 23, 85, 12, 92, 6, 57};
  Rule rule;
  rule.k = model->config().layers[0].attention.head_dim;
  rule.stat_span = rule.positions = {0, 8};
  rule.layers = {0, 1};
  spec.arms = {{"flat", model, {rule}}};
  spec.capture = CaptureAll(model->config());
  spec.capture.points = {HookPoint::kRotQ, HookPoint::kRotK};
  spec.capture.stage = 2;
  const Recorder recorder = RunAlone(spec);
  ASSERT_EQ(recorder.frames.size(), 4u);
  for (const LayerFrame& f : recorder.frames) {
    const std::vector<float> x = Floats(f.data);
    const int heads = f.shape[1], dim = f.shape[2];
    ASSERT_EQ(x.size(), static_cast<size_t>(8 * heads * dim));
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(x[i], x[i / dim % heads * dim]);  // the first value of its head
    }
  }
}

}  // namespace
}  // namespace qk::testing
