// Tests what /metrics/activations says of frames made here, and that it stays
// within its limit.
#include "server/observe/activation_metrics.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "prometheus/text_serializer.h"
#include "server/convert/presets.h"
#include "server/observe/activation_run.h"
#include "tests/server/observe/metric_samples.h"
#include "tests/server/observe/promtool.h"

namespace qk {
namespace {

using testing::ParseSamples;
using testing::Promtool;
using testing::Samples;
using testing::Total;

constexpr HookPoint kPoints[] = {HookPoint::kQ, HookPoint::kK, HookPoint::kV,
                                 HookPoint::kRotQ, HookPoint::kRotK};

// Only the addresses of models matter here.
const Model* FakeModel(int i) {
  static const char* const kBase = new char[1000];
  return reinterpret_cast<const Model*>(kBase + i);
}
std::shared_ptr<const Model> NotOwned(const Model* model) {
  return {std::shared_ptr<const Model>(), model};
}

ModelConfig Config(int layers) {
  ModelConfig config;
  config.layers.resize(static_cast<size_t>(layers));
  for (LayerConfig& layer : config.layers) {
    layer.attention.num_heads = 2;
    layer.attention.num_kv_heads = 2;
    layer.attention.head_dim = 8;
  }
  return config;
}

// One entry of each head is `factor` times the others.
std::vector<float> Norms(float factor) {
  std::vector<float> norms(16, 1.0f);
  norms[3] = norms[8] = factor;
  return norms;
}

LayerFrame Frame(int arm, int layer, HookPoint point,
                 const std::vector<float>& norms) {
  LayerFrame frame;
  frame.arm = arm;
  frame.layer = layer;
  frame.point = point;
  frame.shape = {2, 8};
  frame.heads = {0, 1};
  frame.data.resize(norms.size() * sizeof(float));
  std::memcpy(frame.data.data(), norms.data(), frame.data.size());
  frame.statistics_inputs = {{1, 2, 3, 4}, 5.0, 8};
  frame.ComputeStatistics();
  return frame;
}

DisruptionRule Rule(DisruptionRule::Select select) {
  DisruptionRule rule;
  rule.select = select;
  return rule;
}

RunSpec Spec(const Model* model) {
  RunSpec spec;
  spec.tokens = {1, 2, 3};
  spec.arms.resize(3);
  for (ArmSpec& arm : spec.arms) arm.model = NotOwned(model);
  spec.arms[1].rules = {Rule(DisruptionRule::Select::kTopK)};
  spec.arms[2].rules = {Rule(DisruptionRule::Select::kBottomK),
                        Rule(DisruptionRule::Select::kRandomK)};
  return spec;
}

bool Everything(const std::string&) { return true; }

std::string TextOf(const ActivationMetrics& metrics) {
  return prometheus::TextSerializer().Serialize(metrics.Collect(Everything));
}

std::string Labels(const std::string& model, int layer, const char* tensor,
                   const char* rope, const char* arm) {
  return absl::StrCat("{model=\"", model, "\",layer=\"", layer, "\",tensor=\"",
                      tensor, "\",rope=\"", rope, "\",arm=\"", arm, "\"}");
}

TEST(ArmKindTest, AControlHasControlRulesOnly) {
  ArmSpec arm;
  EXPECT_EQ(ArmKindOf(arm), ArmKind::kClean);
  arm.rules = {Rule(DisruptionRule::Select::kRandomK)};
  EXPECT_EQ(ArmKindOf(arm), ArmKind::kControl);
  arm.rules.push_back(Rule(DisruptionRule::Select::kTopK));
  EXPECT_EQ(ArmKindOf(arm), ArmKind::kDisrupted);
  for (auto select : {DisruptionRule::Select::kThreshold,
                      DisruptionRule::Select::kExplicit}) {
    arm.rules = {Rule(select)};
    EXPECT_EQ(ArmKindOf(arm), ArmKind::kDisrupted);
  }
}

// So the rules alone say that an arm came from a control preset.
TEST(ArmKindTest, ControlPresetsHaveControlRules) {
  const ModelConfig config = Config(2);
  for (const std::string& name : PresetNames()) {
    ::qkscope::v1::Preset preset;
    preset.set_name(name);
    const auto rules = ExpandPreset(preset, "preset", config);
    ASSERT_TRUE(rules.ok());
    for (const auto& rule : *rules) {
      EXPECT_EQ(rule.has_random_k() || rule.has_bottom_k(),
                absl::EndsWith(name, "/control"))
          << name;
    }
  }
}

TEST(ActivationMetricsTest, ShowsTheLastPromptAndCountsAll) {
  ActivationMetrics metrics({});
  metrics.ModelLoaded("m", FakeModel(0), Config(2), "sha");
  EXPECT_EQ(ParseSamples(TextOf(metrics))
                .count("qkscope_activation_age_seconds{model=\"m\"}"),
            0u);
  for (float factor : {20.0f, 10.0f}) {
    ActivationRun run(&metrics, Spec(FakeModel(0)), ActivationSource::kAnalyze);
    for (int layer = 0; layer < 2; ++layer) {
      for (HookPoint point : kPoints) {
        for (int arm = 0; arm < 3; ++arm) {
          run.Add(Frame(arm, layer, point,
                        Norms(factor + 0.5f * static_cast<float>(arm))));
        }
      }
    }
    run.Finish();
  }
  const std::string text = TextOf(metrics);
  EXPECT_EQ(Promtool(text), "");
  const Samples samples = ParseSamples(text);
  const char* const arms[] = {"clean", "disrupted", "control"};
  for (int arm = 0; arm < 3; ++arm) {
    for (const auto& [tensor, rope] :
         {std::pair("q", "before"), std::pair("q", "after"),
          std::pair("k", "before"), std::pair("k", "after"),
          std::pair("v", "none")}) {
      const std::string labels = Labels("m", 1, tensor, rope, arms[arm]);
      const double largest = 10 + 0.5 * arm;
      EXPECT_EQ(samples.at("qkscope_activation_massive_entries" + labels), 0)
          << labels;
      EXPECT_FLOAT_EQ(static_cast<float>(samples.at(
                          "qkscope_activation_max_mean_ratio" + labels)),
                      static_cast<float>(largest / ((7 + largest) / 8)));
      EXPECT_EQ(samples.at("qkscope_activation_max_norm" + labels), largest);
      EXPECT_EQ(samples.at("qkscope_activation_non_finite_values" + labels), 0);
      EXPECT_EQ(samples.count("qkscope_activation_top_dim_ratio" + labels), 0u);
    }
  }
  EXPECT_EQ(samples.at("qkscope_activation_samples_total{model=\"m\",source="
                       "\"analyze\"}"),
            2);
  EXPECT_EQ(samples.at("qkscope_activation_samples_total{model=\"m\",source="
                       "\"score\"}"),
            0);
  const std::string of_q =
      "{model=\"m\",tensor=\"q\",rope=\"after\",arm=\"clean\"}";
  EXPECT_EQ(
      samples.at("qkscope_activation_matrix_massive_entries_count" + of_q), 4);
  // 20 / 27 x 8 = 5.93 is massive in both heads, 10 / 17 x 8 = 4.7 in none.
  EXPECT_EQ(samples.at("qkscope_activation_matrix_massive_entries_sum" + of_q),
            4);
  EXPECT_EQ(samples.at("qkscope_activation_matrix_massive_entries_bucket{model="
                       "\"m\",tensor=\"q\",rope=\"after\",arm=\"clean\",le="
                       "\"0\"}"),
            2);
  EXPECT_EQ(samples.at("qkscope_activation_left_out_series"), 0);
}

// What gauges of other prompts could not be compared with is not shown.
TEST(ActivationMetricsTest, ShowsWholeMatricesOfTheFirstArmOfItsKind) {
  ActivationMetrics metrics({});
  metrics.ModelLoaded("m", FakeModel(0), Config(1), "sha");
  RunSpec spec = Spec(FakeModel(0));
  spec.arms[2].rules.clear();  // a second clean arm
  ActivationRun run(&metrics, spec, ActivationSource::kAnalyze);
  run.Add(Frame(0, 0, HookPoint::kRotQ, Norms(20)));
  run.Add(Frame(2, 0, HookPoint::kRotQ, Norms(30)));
  LayerFrame one_head = Frame(0, 0, HookPoint::kRotK, Norms(20));
  one_head.heads = {0};
  run.Add(one_head);
  LayerFrame after = Frame(0, 0, HookPoint::kV, Norms(20));
  after.stage = Stage::kAfter;
  run.Add(after);
  LayerFrame decode = Frame(0, 0, HookPoint::kV, Norms(20));
  decode.phase = Phase::kDecode;
  run.Add(decode);
  LayerFrame tower = Frame(0, 0, HookPoint::kV, Norms(20));
  tower.image = 0;
  run.Add(tower);
  run.Add(Frame(0, 0, HookPoint::kZ, Norms(20)));
  spec.capture.positions = {1};
  ActivationRun some(&metrics, spec, ActivationSource::kAnalyze);
  some.Add(Frame(0, 0, HookPoint::kRotQ, Norms(40)));
  const Samples samples = ParseSamples(TextOf(metrics));
  EXPECT_EQ(samples.at("qkscope_activation_max_norm" +
                       Labels("m", 0, "q", "after", "clean")),
            20);
  for (const auto& [name, value] : samples) {
    EXPECT_FALSE(absl::StrContains(name, "tensor=\"k\"")) << name;
    EXPECT_FALSE(absl::StrContains(name, "tensor=\"v\"")) << name;
  }
  // The histograms have both arms.
  EXPECT_EQ(samples.at("qkscope_activation_matrix_max_mean_ratio_count{model="
                       "\"m\",tensor=\"q\",rope=\"after\",arm=\"clean\"}"),
            2);
}

TEST(ActivationMetricsTest, AnotherThresholdCountsAsFive) {
  ActivationMetrics metrics({});
  metrics.ModelLoaded("m", FakeModel(0), Config(1), "sha");
  ActivationRun run(&metrics, Spec(FakeModel(0)), ActivationSource::kAnalyze);
  LayerFrame frame = Frame(0, 0, HookPoint::kRotQ, Norms(20));
  frame.statistics_inputs->lambda = 100;
  frame.ComputeStatistics();
  ASSERT_EQ(frame.statistics->massive_count, 0);
  run.Add(frame);
  EXPECT_EQ(ParseSamples(TextOf(metrics))
                .at("qkscope_activation_massive_entries" +
                    Labels("m", 0, "q", "after", "clean")),
            2);
}

TEST(ActivationMetricsTest, NonFiniteValuesAreToldByTheModelsName) {
  std::string told;
  ActivationMetrics::Options options;
  options.on_non_finite = [&](const std::string& model, int64_t) {
    told = model;
  };
  ActivationMetrics metrics(options);
  // The last one's label is "other".
  for (int i = 0; i <= 50; ++i) {
    metrics.ModelLoaded(absl::StrCat("m", i), FakeModel(i), Config(1), "sha");
  }
  std::vector<float> norms = Norms(20);
  norms[0] = std::numeric_limits<float>::quiet_NaN();
  ActivationRun run(&metrics, Spec(FakeModel(50)), ActivationSource::kAnalyze);
  run.Add(Frame(0, 0, HookPoint::kRotQ, norms));
  EXPECT_EQ(told, "m50");
}

TEST(ActivationMetricsTest, ValuesThatAreNotFiniteSpoilNoSum) {
  int64_t told = 0;
  ActivationMetrics::Options options;
  options.on_non_finite = [&](const std::string& model, int64_t values) {
    EXPECT_EQ(model, "m");
    told += values;
  };
  ActivationMetrics metrics(options);
  metrics.ModelLoaded("m", FakeModel(0), Config(1), "sha");
  const auto add = [&](const std::vector<float>& norms) {
    ActivationRun run(&metrics, Spec(FakeModel(0)), ActivationSource::kAnalyze);
    run.Add(Frame(0, 0, HookPoint::kRotQ, norms));
  };
  const std::string labels = Labels("m", 0, "q", "after", "clean");
  const std::string of_q =
      "{model=\"m\",tensor=\"q\",rope=\"after\",arm=\"clean\"}";
  std::vector<float> norms = Norms(20);
  norms[0] = std::numeric_limits<float>::infinity();
  norms[9] = std::numeric_limits<float>::quiet_NaN();
  add(norms);
  Samples samples = ParseSamples(TextOf(metrics));
  EXPECT_EQ(samples.at("qkscope_activation_non_finite_values" + labels), 2);
  EXPECT_EQ(samples.at("qkscope_activation_max_norm" + labels), 20);
  EXPECT_EQ(told, 2);
  add(std::vector<float>(16, std::numeric_limits<float>::quiet_NaN()));
  const std::string text = TextOf(metrics);
  EXPECT_EQ(Promtool(text), "");
  samples = ParseSamples(text);
  EXPECT_EQ(samples.at("qkscope_activation_non_finite_values" + labels), 16);
  EXPECT_EQ(samples.count("qkscope_activation_max_norm" + labels), 0u);
  EXPECT_EQ(samples.count("qkscope_activation_max_mean_ratio" + labels), 0u);
  EXPECT_EQ(told, 18);
  EXPECT_EQ(samples.at("qkscope_activation_matrix_max_mean_ratio_count" + of_q),
            1);
  const double sum =
      samples.at("qkscope_activation_matrix_max_mean_ratio_sum" + of_q);
  EXPECT_TRUE(sum > 0 && std::isfinite(sum)) << sum;
}

// Every matrix of every arm, in all layers.
void Fill(ActivationMetrics* metrics, int model, int layers) {
  ActivationRun run(metrics, Spec(FakeModel(model)),
                    ActivationSource::kAnalyze);
  for (int layer = 0; layer < layers; ++layer) {
    for (HookPoint point : kPoints) {
      for (int arm = 0; arm < 3; ++arm) {
        run.Add(Frame(arm, layer, point, Norms(20)));
      }
    }
  }
  run.Finish();
}

TEST(ActivationMetricsTest, O7_StaysWithinItsLimit) {
  constexpr int kLayers = 126;
  for (const int64_t limit : {int64_t{20'000}, int64_t{1'000'000}}) {
    ActivationMetrics::Options options;
    options.max_series = limit;
    ActivationMetrics metrics(options);
    for (int i = 0; i < 60; ++i) {
      metrics.ModelLoaded(absl::StrCat("model", i), FakeModel(i),
                          Config(kLayers), "sha");
      Fill(&metrics, i, kLayers);
    }
    const std::string text = TextOf(metrics);
    const Samples samples = ParseSamples(text);
    const double left_out = samples.at("qkscope_activation_left_out_series");
    if (limit > 20'000) {  // shows that the limit is what keeps it small
      EXPECT_GT(samples.size(), 20'000u);
      EXPECT_EQ(left_out, 0);
      continue;
    }
    EXPECT_EQ(Promtool(text), "");
    EXPECT_LE(samples.size(), 20'000u);
    EXPECT_GT(samples.size(), 19'900u);  // and it is used
    EXPECT_GT(left_out, 0);
    // The model used last is shown whole, with histograms and all layers. The
    // names that came first have labels of their own.
    EXPECT_EQ(
        samples.count("qkscope_activation_max_norm" +
                      Labels("model49", kLayers - 1, "k", "before", "control")),
        1u);
    EXPECT_EQ(
        samples.count("qkscope_activation_max_norm" +
                      Labels("model48", kLayers - 1, "k", "before", "control")),
        0u);
    EXPECT_EQ(samples.count("qkscope_activation_max_norm" +
                            Labels("model48", 0, "q", "after", "clean")),
              1u);
    EXPECT_EQ(samples.count("qkscope_activation_samples_total{model=\"other\","
                            "source=\"analyze\"}"),
              1u);
    EXPECT_EQ(samples.at("qkscope_activation_samples_total{model=\"other\","
                         "source=\"analyze\"}"),
              10);
    EXPECT_FALSE(absl::StrContains(text, "model50"));
  }
}

// 50 names, of which four are loaded at a time.
TEST(ActivationMetricsTest, O7_StaysWithinItsLimitWithModelsInRotation) {
  for (const int64_t limit : {int64_t{20'000}, int64_t{1'000'000}}) {
    ActivationMetrics::Options options;
    options.max_series = limit;
    ActivationMetrics metrics(options);
    size_t most = 0;
    for (int i = 0; i < 60; ++i) {
      if (i >= 4) metrics.ModelUnloaded(absl::StrCat("model", (i - 4) % 50));
      metrics.ModelLoaded(absl::StrCat("model", i % 50), FakeModel(i),
                          Config(80), "sha");
      Fill(&metrics, i, 80);
      if (i % 10 < 9) continue;
      most = std::max(most, ParseSamples(TextOf(metrics)).size());
    }
    if (limit > 20'000) {
      EXPECT_GT(most, 20'000u);
    } else {
      EXPECT_LE(most, 20'000u);
    }
    EXPECT_EQ(Total(ParseSamples(TextOf(metrics)),
                    "qkscope_activation_samples_total"),
              60);
  }
}

TEST(ActivationSamplingTest, ChoosesExactlyTheShare) {
  for (double share : {0.0, 0.001, 0.3, 0.5, 2.0 / 3, 1.0}) {
    ActivationMetrics::Options options;
    options.shown.sampling = share;
    ActivationMetrics metrics(options);
    int64_t chosen = 0;
    for (int64_t n = 1; n <= 100'000; ++n) {
      if (metrics.Choose()) ++chosen;
      ASSERT_LE(std::abs(static_cast<double>(chosen) -
                         share * static_cast<double>(n)),
                1.0)
          << share << " of " << n;
    }
    EXPECT_EQ(chosen, static_cast<int64_t>(std::floor(share * 100'000)));
  }
}

TEST(ActivationSamplingTest, FramesThatWaitAreBounded) {
  ActivationMetrics::Options options;
  options.max_waiting_bytes = 100;
  ActivationMetrics metrics(options);
  EXPECT_TRUE(metrics.TakeRoom(60));
  EXPECT_FALSE(metrics.TakeRoom(41));
  EXPECT_TRUE(metrics.TakeRoom(40));
  metrics.GiveRoomBack(60);
  EXPECT_TRUE(metrics.TakeRoom(60));
  metrics.CountDropped();
  EXPECT_EQ(ParseSamples(TextOf(metrics))
                .at("qkscope_activation_dropped_samples_total"),
            1);
}

TEST(ActivationMetricsTest, ShowsTheModelsThatWereUsedLast) {
  ActivationMetrics::Options options;
  options.shown.models = 2;
  ActivationMetrics metrics(options);
  for (int i = 0; i < 4; ++i) {
    metrics.ModelLoaded(absl::StrCat("m", i), FakeModel(i), Config(1), "sha");
  }
  const auto shown = [&](const auto& may_see) {
    const Samples samples = ParseSamples(
        prometheus::TextSerializer().Serialize(metrics.Collect(may_see)));
    std::string out;
    for (int i = 0; i < 4; ++i) {
      if (samples.count(
              "qkscope_activation_max_norm" +
              Labels(absl::StrCat("m", i), 0, "q", "after", "clean")) > 0) {
        absl::StrAppend(&out, i);
      }
    }
    return out;
  };
  EXPECT_EQ(shown(Everything), "");
  for (int i : {0, 1, 2, 3, 0}) Fill(&metrics, i, 1);
  EXPECT_EQ(shown(Everything), "03");
  // Who may not see a model is not told that it hides another.
  EXPECT_EQ(shown([](const std::string& name) { return name != "m3"; }), "02");
  metrics.ModelUnloaded("m0");
  EXPECT_EQ(shown(Everything), "23");
  Fill(&metrics, 0, 1);  // a run that ends after its model is gone
  EXPECT_EQ(shown(Everything), "23");
  // Counters stay.
  const std::string text = TextOf(metrics);
  EXPECT_EQ(ParseSamples(text).at(
                "qkscope_activation_samples_total{model=\"m0\",source="
                "\"analyze\"}"),
            2);
  // Another model of the name begins anew.
  metrics.ModelLoaded("m3", FakeModel(9), Config(1), "sha");
  EXPECT_EQ(shown(Everything), "12");
}

}  // namespace
}  // namespace qk
