// Tests patterns, their means and drifts, and the files of baselines.
#include "server/observe/activation_baseline.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "server/common/delay_point.h"
#include "server/observe/activation_metrics.h"
#include "server/observe/activation_run.h"
#include "tests/temp_folder.h"

namespace qk {
namespace {

namespace fs = std::filesystem;
using testing::TempFolder;

constexpr ActivationMatrix kQ = ActivationMatrix::kQAfter;

ModelConfig Config() {
  ModelConfig config;
  config.layers.resize(2);
  for (LayerConfig& layer : config.layers) {
    layer.attention.num_heads = 2;
    layer.attention.num_kv_heads = 1;
    layer.attention.head_dim = 3;
  }
  return config;
}

std::string ContentOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file),
          std::istreambuf_iterator<char>()};
}

ActivationBaseline Example(float value = 1) {
  ActivationBaseline out;
  out.model = "m";
  out.weights_sha256 = "sha";
  out.created = absl::FromUnixMillis(1'700'000'000'123);
  const std::vector<float> six = {value, 2, 3, 4, 5, 6};
  out.patterns.Add({kQ, 1}, {2, 3}, six);
  out.patterns.Add({kQ, 1}, {2, 3}, six);
  out.patterns.Add({ActivationMatrix::kV, 0}, {1, 3}, {0.5f, 1, 1.5f});
  return out;
}

TEST(PatternTest, IsTheNormOverTheMeanOfItsHead) {
  const auto pattern = PatternOf({1, 2, 3, 10, 10, 40}, 2, 3);
  ASSERT_TRUE(pattern.has_value());
  EXPECT_THAT(*pattern, ::testing::Pointwise(
                            ::testing::FloatEq(),
                            std::vector<float>{0.5f, 1, 1.5f, 0.5f, 0.5f, 2}));
  // The same values at another scale.
  const auto scaled = PatternOf({7, 14, 21, 1, 1, 4}, 2, 3);
  ASSERT_TRUE(scaled.has_value());
  EXPECT_LT(DriftBetween(*pattern, *scaled), 1e-12);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(),
                    std::numeric_limits<float>::infinity()}) {
    EXPECT_FALSE(PatternOf({1, bad, 3, 10, 10, 40}, 2, 3).has_value());
  }
  EXPECT_FALSE(PatternOf({1, 2, 3, 0, 0, 0}, 2, 3).has_value());
}

TEST(PatternTest, DriftIsOneMinusTheCosine) {
  const std::vector<float> a = {1, 0, 0}, b = {0, 1, 0}, c = {1, 1, 0};
  EXPECT_EQ(DriftBetween(a, a), 0);
  EXPECT_EQ(DriftBetween(a, b), 1);
  EXPECT_NEAR(DriftBetween(a, c), 1 - 1 / std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(DriftBetween(c, b), 1 - 1 / std::sqrt(2.0), 1e-12);
}

TEST(PatternTest, MeansAreOfEachPlace) {
  MeanPatterns means;
  EXPECT_EQ(means.prompts(), 0);
  std::vector<double> sum(3);
  for (int i = 1; i <= 1000; ++i) {
    const std::vector<float> pattern = {1.0f / static_cast<float>(i), 1,
                                        static_cast<float>(i % 7)};
    means.Add({kQ, 0}, {1, 3}, pattern);
    for (size_t j = 0; j < 3; ++j) sum[j] += pattern[j];
  }
  means.Add({kQ, 1}, {1, 3}, {1, 2, 3});
  const MeanPatterns::Mean* mean = means.Find({kQ, 0});
  ASSERT_NE(mean, nullptr);
  for (size_t j = 0; j < 3; ++j) {
    EXPECT_NEAR(mean->values[j], sum[j] / 1000, 1e-5);
  }
  EXPECT_EQ(mean->prompts, 1000);
  EXPECT_EQ(means.prompts(), 1000);
  EXPECT_EQ(means.Find({kQ, 1})->prompts, 1);
  EXPECT_EQ(means.Find({kQ, 2}), nullptr);
  EXPECT_GE(means.bytes(), 6 * static_cast<int64_t>(sizeof(float)));
}

TEST(BaselineFileTest, ReadsWhatWasWritten) {
  const ActivationBaseline example = Example();
  const auto read = ParseBaseline(SerializeBaseline(example), "sha", Config());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->model, "m");
  EXPECT_EQ(read->weights_sha256, "sha");
  EXPECT_EQ(read->created, example.created);
  ASSERT_EQ(read->patterns.means().size(), 2u);
  for (const auto& [place, mean] : example.patterns.means()) {
    const MeanPatterns::Mean* got = read->patterns.Find(place);
    ASSERT_NE(got, nullptr);
    EXPECT_EQ(got->shape, mean.shape);
    EXPECT_EQ(got->values, mean.values);
    EXPECT_EQ(got->prompts, mean.prompts);
  }
}

TEST(BaselineFileTest, EveryChangedByteIsNoticed) {
  const std::string whole = SerializeBaseline(Example());
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string bytes = whole;
    bytes[i] = static_cast<char>(bytes[i] ^ 1);
    EXPECT_FALSE(ParseBaseline(bytes, "sha", Config()).ok()) << i;
    EXPECT_FALSE(ParseBaseline(whole.substr(0, i), "sha", Config()).ok()) << i;
  }
}

TEST(BaselineFileTest, OtherWeightsAreNotUsed) {
  const auto read =
      ParseBaseline(SerializeBaseline(Example()), "other", Config());
  EXPECT_TRUE(absl::IsFailedPrecondition(read.status()));
  EXPECT_TRUE(absl::StrContains(read.status().message(), "sha"))
      << read.status();
}

// What the model has not, or not in this shape, as if its checksum were right.
TEST(BaselineFileTest, MatricesMustBeTheModels) {
  const auto parse = [](const ActivationPlace& place, std::vector<int> shape,
                        std::vector<float> values) {
    ActivationBaseline baseline;
    baseline.weights_sha256 = "sha";
    baseline.patterns.Set(place, {std::move(shape), std::move(values), 1});
    return ParseBaseline(SerializeBaseline(baseline), "sha", Config()).status();
  };
  EXPECT_TRUE(parse({kQ, 1}, {2, 3}, {1, 2, 3, 4, 5, 6}).ok());
  for (const absl::Status& status :
       {parse({kQ, 2}, {2, 3}, {1, 2, 3, 4, 5, 6}),
        parse({kQ, -1}, {2, 3}, {1, 2, 3, 4, 5, 6}),
        parse({kQ, 1}, {3, 2}, {1, 2, 3, 4, 5, 6}),
        parse({kQ, 1}, {2, 3}, {1, 2, 3}), parse({kQ, 1}, {}, {}),
        parse({ActivationMatrix::kV, 1}, {2, 3}, {1, 2, 3, 4, 5, 6}),
        parse({kQ, 1}, {2, 3}, {1, 2, 3, 4, 5, -6}),
        parse({kQ, 1}, {2, 3}, {1, 2, 3, 4, 5, std::nanf("")}),
        parse({kQ, 1}, {2, 3}, {0, 0, 0, 0, 0, 0})}) {
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  }
}

TEST(BaselineFolderTest, KeepsOneFileForAModel) {
  const TempFolder temp;
  const std::string path = temp.path() + "/baselines";
  ASSERT_TRUE(BaselineFolder::Make(path).ok());
  ASSERT_TRUE(BaselineFolder::Make(path).ok());
  struct stat info = {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0700u);
  const BaselineFolder folder(path);
  EXPECT_TRUE(absl::IsNotFound(folder.Read("m", "sha", Config()).status()));
  EXPECT_TRUE(absl::IsNotFound(folder.Remove("m")));
  ASSERT_TRUE(folder.Write(Example()).ok());
  ASSERT_TRUE(folder.Write(Example(7)).ok());
  const auto read = folder.Read("m", "sha", Config());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->patterns.Find({kQ, 1})->values[0], 7);
  EXPECT_EQ(std::distance(fs::directory_iterator(path), {}), 1);
  EXPECT_TRUE(folder.Remove("m").ok());
  EXPECT_TRUE(absl::IsNotFound(folder.Read("m", "sha", Config()).status()));
}

TEST(BaselineFolderTest, SaysWhatIsWrong) {
  const TempFolder temp;
  temp.Write("file", "");
  EXPECT_TRUE(
      absl::IsInvalidArgument(BaselineFolder::Make(temp.path() + "/file")));
  EXPECT_FALSE(BaselineFolder::Make(temp.path() + "/no/folder").ok());
  const BaselineFolder gone(temp.path() + "/gone");
  const absl::Status status = gone.Write(Example());
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_FALSE(absl::StrContains(status.message(), temp.path())) << status;
  const BaselineFolder folder(temp.path());
  temp.Write("m.baseline", "junk");
  EXPECT_TRUE(absl::IsDataLoss(folder.Read("m", "sha", Config()).status()));
  // No more is read than the model's baseline can have.
  temp.Write("m.baseline", std::string(3 << 20, 'x'));
  EXPECT_TRUE(
      absl::IsInvalidArgument(folder.Read("m", "sha", Config()).status()));
  fs::remove(temp.path() + "/m.baseline");
  ASSERT_EQ(mkfifo((temp.path() + "/m.baseline").c_str(), 0600), 0);
  EXPECT_FALSE(folder.Read("m", "sha", Config()).ok());  // does not wait
}

const char* die_at = nullptr;

// A process that dies while it writes leaves the old file or the new one.
TEST(BaselineFolderTest, O8_AFileIsWholeWhenTheProcessDies) {
  const TempFolder temp;
  const BaselineFolder folder(temp.path());
  ASSERT_TRUE(folder.Write(Example()).ok());
  for (const char* point : {"baseline.sync", "baseline.rename"}) {
    die_at = point;
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      delay_hook = [](const char* reached) {
        if (std::strcmp(reached, die_at) == 0) kill(getpid(), SIGKILL);
      };
      folder.Write(Example(9)).IgnoreError();
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << point;
    const auto read = folder.Read("m", "sha", Config());
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->patterns.Find({kQ, 1})->values[0], 1) << point;
  }
  // What the dead have left is no obstacle.
  ASSERT_TRUE(folder.Write(Example(9)).ok());
  const auto read = folder.Read("m", "sha", Config());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->patterns.Find({kQ, 1})->values[0], 9);
}

class BaselineMetricsTest : public ::testing::Test {
 protected:
  // Only the address matters here.
  const Model* model() const { return reinterpret_cast<const Model*>(this); }

  void Load(ActivationMetrics* metrics, const std::string& sha256 = "sha") {
    metrics->ModelLoaded("m", model(), Config(), sha256);
  }
  void Prompt(ActivationMetrics* metrics, const std::vector<float>& norms) {
    RunSpec spec;
    spec.tokens = {1};
    spec.arms.resize(1);
    spec.arms[0].model = {std::shared_ptr<const Model>(), model()};
    ActivationRun run(metrics, spec, ActivationSource::kAnalyze);
    LayerFrame frame;
    frame.point = HookPoint::kRotQ;
    frame.shape = {2, 3};
    frame.heads = {0, 1};
    frame.data.resize(norms.size() * sizeof(float));
    std::memcpy(frame.data.data(), norms.data(), frame.data.size());
    frame.statistics_inputs = {{}, 5.0, 0};
    frame.ComputeStatistics();
    run.Add(frame);
    run.Finish();
  }
  std::optional<double> Drift(const ActivationMetrics& metrics) {
    const auto gauges = metrics.Find(model())->Gauges(kQ, ArmKind::kClean);
    if (!gauges[0].has_value()) return std::nullopt;
    return gauges[0]->drift;
  }
};

TEST_F(BaselineMetricsTest, DriftIsFromTheMeanThatWasSaved) {
  ActivationMetrics metrics({});
  Load(&metrics);
  EXPECT_TRUE(absl::IsFailedPrecondition(metrics.SaveBaseline("m").status()));
  EXPECT_TRUE(absl::IsNotFound(metrics.SaveBaseline("n").status()));
  EXPECT_TRUE(absl::IsNotFound(metrics.RemoveBaseline("m")));
  Prompt(&metrics, {1, 2, 3, 1, 1, 1});
  EXPECT_EQ(Drift(metrics), std::nullopt);
  Prompt(&metrics, {3, 2, 1, 1, 1, 1});
  ASSERT_TRUE(metrics.SaveBaseline("m").ok());
  EXPECT_EQ(Drift(metrics), std::nullopt);  // of the next prompt on
  Prompt(&metrics, {1, 1, 1, 9, 9, 9});     // the mean of both
  ASSERT_TRUE(Drift(metrics).has_value());
  EXPECT_LT(*Drift(metrics), 1e-12);
  Prompt(&metrics, {1, 0, 0, 1, 1, 1});  // (3, 0, 0, 1, 1, 1)
  EXPECT_NEAR(*Drift(metrics), 1 - 6 / std::sqrt(6.0 * 12.0), 1e-6);
  // A prompt that is not finite is not compared, and changes no mean.
  Prompt(&metrics, {1, std::nanf(""), 0, 1, 1, 1});
  EXPECT_EQ(Drift(metrics), std::nullopt);
  EXPECT_EQ(metrics.Find(model())->patterns().prompts(), 4);
  EXPECT_TRUE(metrics.RemoveBaseline("m").ok());
  Prompt(&metrics, {1, 0, 0, 1, 1, 1});
  EXPECT_EQ(Drift(metrics), std::nullopt);
  ASSERT_TRUE(metrics.SaveBaseline("m").ok());
  metrics.ModelUnloaded("m");
  Load(&metrics);
  EXPECT_TRUE(absl::IsFailedPrecondition(metrics.SaveBaseline("m").status()));
  EXPECT_EQ(metrics.Find(model())->baseline(), nullptr);
}

TEST_F(BaselineMetricsTest, FilesSurviveTheServerAndAreOfTheirWeights) {
  const TempFolder temp;
  std::vector<std::string> told;
  ActivationMetrics::Options options;
  options.shown.baseline_dir = temp.path();
  options.on_bad_baseline = [&](const std::string& name,
                                const absl::Status& reason) {
    told.push_back(name + ": " + std::string(reason.message()));
  };
  const std::string file = temp.path() + "/m.baseline";
  {
    ActivationMetrics metrics(options);
    Load(&metrics);
    Prompt(&metrics, {1, 2, 3, 1, 1, 1});
    ASSERT_TRUE(metrics.SaveBaseline("m").ok());
  }
  EXPECT_TRUE(told.empty());
  {
    ActivationMetrics metrics(options);
    Load(&metrics);
    Prompt(&metrics, {1, 2, 3, 1, 1, 1});
    ASSERT_TRUE(Drift(metrics).has_value());
    EXPECT_LT(*Drift(metrics), 1e-12);
    Load(&metrics, "other");
    EXPECT_EQ(metrics.Find(model())->baseline(), nullptr);
    ASSERT_EQ(told.size(), 1u);
    EXPECT_TRUE(absl::StrContains(told[0], "other weights")) << told[0];
    EXPECT_TRUE(fs::exists(file));
  }
  std::ofstream(file) << "junk";
  ActivationMetrics metrics(options);
  Load(&metrics);
  EXPECT_EQ(metrics.Find(model())->baseline(), nullptr);
  EXPECT_EQ(told.size(), 2u);
  EXPECT_TRUE(metrics.RemoveBaseline("m").ok());
  EXPECT_FALSE(fs::exists(file));
  // A file that cannot be written changes nothing.
  Prompt(&metrics, {1, 2, 3, 1, 1, 1});
  ASSERT_TRUE(metrics.SaveBaseline("m").ok());
  const std::string before = ContentOf(file);
  const auto old = metrics.Find(model())->baseline();
  fs::create_directory(file + ".part");
  Prompt(&metrics, {3, 2, 1, 1, 1, 1});
  EXPECT_FALSE(metrics.SaveBaseline("m").ok());
  EXPECT_EQ(ContentOf(file), before);
  EXPECT_EQ(metrics.Find(model())->baseline(), old);
}

}  // namespace
}  // namespace qk
