// A wrong model must not load: whatever changes in a config.json, the model is
// refused, or its logits or its context change. config_mutation_tables.cc lists
// the changes without effect, with the reason.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/images.h"
#include "tests/engine/architectures/config_mutation_tables.h"
#include "tests/engine/architectures/config_variants.h"
#include "tests/engine/vision_testing.h"

namespace qk::testing {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> Goldens() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(GoldenPath(""))) {
    const std::string name = entry.path().filename().string();
    if (absl::StartsWith(name, "tiny_") &&
        fs::exists(entry.path() / "config.json")) {
      names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Counts {
  int refused = 0, changed = 0, context = 0, excused = 0;

  int all() const { return refused + changed + context + excused; }
  void Print(absl::string_view name) const {
    std::cout << name << ": " << all() << " variants: " << refused
              << " refused, " << changed << " other logits, " << context
              << " other context, " << excused << " change nothing\n";
  }
};

Counts total;
std::set<const Excuse*> used;

class ConfigMutationTest : public ::testing::TestWithParam<std::string> {
 protected:
  ConfigMutationTest() : backend_(MakeTestBackend(1)) {
    folder_ = fs::path(::testing::TempDir()) /
              absl::StrCat("config_mutation_", ::getpid(), "_", GetParam());
    fs::create_directories(folder_);
    fs::create_symlink(GoldenPath(GetParam() + "/model.safetensors"),
                       folder_ / "model.safetensors");
    golden_ = ReadJson(GoldenPath(GetParam() + "/golden.json"));
    for (const char* name : {"p0", "p1"}) {
      images_[name] = GoldenImages(GetParam(), name);
    }
  }
  ~ConfigMutationTest() override { fs::remove_all(folder_); }

  absl::StatusOr<std::shared_ptr<const Model>> Load(const std::string& config) {
    std::ofstream(folder_ / "config.json") << config;
    ModelOptions options;
    options.kv_cache_bytes = 4 << 20;
    options.max_rows_per_pass = 128;
    return Model::Load(folder_.string(), options, backend_.get());
  }

  // Returns both prompts' logits at all positions; none if images do not fit.
  std::vector<float> Logits(const std::shared_ptr<const Model>& model) const {
    std::vector<std::unique_ptr<Driven>> driven;
    std::vector<Driven*> batch;
    CaptureSpec capture;
    capture.off = true;
    for (const auto& [name, images] : images_) {
      const GoldenPrompt prompt =
          ReadPrompt(golden_->root().Get("prompts")->Get(name).value());
      if (!images.empty() &&
          !CheckImages(images, prompt.ids, model->config().vision).ok()) {
        return {};
      }
      driven.push_back(std::make_unique<Driven>(
          model, prompt, std::vector<DisruptionRule>{}, capture, images));
      batch.push_back(driven.back().get());
      std::vector<int> positions(prompt.ids.size());
      std::iota(positions.begin(), positions.end(), 0);
      batch.back()->Request(positions);
    }
    RunPass(batch);
    std::vector<float> all;
    for (Driven* d : batch) {
      const std::vector<float> logits = d->Logits();
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }

  void Check(const Variant& variant);

  const std::unique_ptr<Backend> backend_;
  fs::path folder_;
  std::optional<JsonDocument> golden_;
  std::map<std::string, std::vector<Image>> images_;  // of each prompt
  std::string model_type_;
  std::vector<float> original_;
  int context_ = 0;
  Counts counts_;
};

void ConfigMutationTest::Check(const Variant& variant) {
  const auto model = Load(variant.text);
  if (!model.ok()) {
    EXPECT_TRUE(absl::IsInvalidArgument(model.status()) ||
                absl::IsUnimplemented(model.status()))
        << variant.path << " " << variant.change << ": " << model.status();
    ++counts_.refused;
    return;
  }
  const std::vector<float> logits = Logits(*model);
  if (logits.size() != original_.size() ||
      std::memcmp(logits.data(), original_.data(), 4 * logits.size()) != 0) {
    ++counts_.changed;
    return;
  }
  if ((*model)->config().context_length != context_) {
    ++counts_.context;
    return;
  }
  const Excuse* excuse = FindExcuse(GetParam(), model_type_, variant);
  EXPECT_NE(excuse, nullptr)
      << variant.path << " " << variant.change << " (was " << variant.before
      << ") changes nothing";
  used.insert(excuse);
  ++counts_.excused;
}

TEST_P(ConfigMutationTest, IsRefusedOrChangesTheModel) {
  const JsonDocument config = ReadJson(GoldenPath(GetParam() + "/config.json"));
  model_type_ = std::string(config.root().GetString("model_type").value());
  const Json json = MakeJson(config.root());
  const auto model = Load(Text(json));
  ASSERT_TRUE(model.ok()) << model.status();
  original_ = Logits(*model);
  ASSERT_FALSE(original_.empty());
  context_ = (*model)->config().context_length;
  EXPECT_EQ(original_, Logits(*model));
  for (const Variant& variant : Variants(json)) Check(variant);
  counts_.Print(GetParam());
  total.refused += counts_.refused;
  total.changed += counts_.changed;
  total.context += counts_.context;
  total.excused += counts_.excused;
}

INSTANTIATE_TEST_SUITE_P(Goldens, ConfigMutationTest,
                         ::testing::ValuesIn(Goldens()),
                         [](const auto& info) { return info.param; });

// This runs last: an excuse that nothing needs is a hole.
class AllExcusesAreNeeded : public ::testing::Environment {
  void TearDown() override {
    total.Print("all goldens");
    if (!::testing::GTEST_FLAG(filter).empty() &&
        ::testing::GTEST_FLAG(filter) != "*") {
      return;
    }
    for (const Excuse& excuse : AllExcuses()) {
      EXPECT_EQ(used.count(&excuse), 1u) << "excuse of " << excuse.models << " "
                                         << excuse.path << " was not needed";
    }
  }
};
const auto* const kEnvironment =
    ::testing::AddGlobalTestEnvironment(new AllExcusesAreNeeded);

}  // namespace
}  // namespace qk::testing
