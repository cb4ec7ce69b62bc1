// Tests that a load finds a weight that is not finite, whatever its tensor, and
// says where the file has it.
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "tests/engine/test_util.h"
#include "tests/poisoned_model.h"

namespace qk::testing {
namespace {

namespace fs = std::filesystem;

// Tensors that no number depends on, by the end of their name.
const std::vector<std::string>& Unused() {
  static const auto& kNames = *new std::vector<std::string>{
      ".rotary_emb.inv_freq", ".attn.bias", ".masked_bias", ".attention.bias"};
  return kNames;
}

bool IsUnused(const std::string& golden, const std::string& name) {
  // Biases of zeros, which GPTQ's writers add.
  if (absl::StartsWith(golden, "tiny_gptq") && absl::EndsWith(name, ".bias")) {
    return true;
  }
  // Gemma 3's images are not served.
  if (golden == "tiny_gemma3_vl" &&
      (absl::StrContains(name, "vision_tower") ||
       absl::StrContains(name, "multi_modal_projector"))) {
    return true;
  }
  return absl::c_any_of(Unused(), [&](const std::string& ending) {
    return absl::EndsWith(name, ending);
  });
}

std::vector<std::string> GoldensWithWeights() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(GoldenPath(""))) {
    if (fs::exists(entry.path() / "model.safetensors")) {
      names.push_back(entry.path().filename());
    }
  }
  absl::c_sort(names);
  return names;
}

class WeightScanTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const Model>> Load(
      const std::string& path, int64_t check_below = int64_t{2} << 30) {
    ModelOptions options;
    options.kv_cache_bytes = 1 << 20;
    options.max_rows_per_pass = 16;
    options.check_weights_below = check_below;
    return Model::Load(path, options, backend_.get());
  }

  const std::unique_ptr<Backend> backend_ = MakeTestBackend(2);
};

TEST_F(WeightScanTest, EveryTensorOfEveryFamily) {
  int tried = 0;
  for (const std::string& golden : GoldensWithWeights()) {
    SCOPED_TRACE(golden);
    const TempFolder folder;
    const std::string whole =
        ReadWhole(GoldenPath(golden) + "/model.safetensors");
    for (const auto& entry : fs::directory_iterator(GoldenPath(golden))) {
      if (absl::EndsWith(entry.path().string(), "config.json")) {
        folder.Write(entry.path().filename(), ReadWhole(entry.path()));
      }
    }
    for (const auto& [name, tensor] : FileTensors(whole)) {
      const bool is_float = tensor.dtype == "F32" || tensor.dtype == "F16" ||
                            tensor.dtype == "BF16";
      // Scales of packed layers have a test of their own.
      if (!is_float || IsUnused(golden, name) ||
          absl::EndsWith(name, ".scales")) {
        continue;
      }
      SCOPED_TRACE(name);
      const int64_t element = (7919 * ++tried) % tensor.elements();
      const int sign = tried % 3 - 1;
      std::string file = whole;
      Poison(tensor, element, sign, &file);
      folder.Write("model.safetensors", file);
      const auto model = Load(folder.path());
      ASSERT_TRUE(model.ok()) << model.status();
      const auto& found = (*model)->non_finite_weights();
      ASSERT_TRUE(found.has_value());
      EXPECT_EQ(found->count, 1);
      EXPECT_EQ(found->tensor, name);
      EXPECT_EQ(found->index, tensor.Index(element));
      EXPECT_EQ(std::isnan(found->value), sign == 0);
      if (sign != 0) {
        EXPECT_EQ(found->value > 0, sign > 0);
      }
    }
  }
  EXPECT_GT(tried, 500);
}

// A scale belongs to a group of one output's weights.
TEST_F(WeightScanTest, ScalesOfPackedLayers) {
  for (const char* golden : {"tiny_awq_g32", "tiny_gptq_g32_sym"}) {
    SCOPED_TRACE(golden);
    const TempFolder folder;
    const std::string module = "model.layers.0.mlp.up_proj";
    const auto tensors =
        FileTensors(ReadWhole(GoldenPath(golden) + "/model.safetensors"));
    const FileTensor& scales = tensors.at(module + ".scales");
    const int64_t out = scales.shape[1] - 2;
    const auto model = Load(PoisonedModel(folder, golden, module + ".scales",
                                          scales.shape[1] + out));
    ASSERT_TRUE(model.ok()) << model.status();
    const auto& found = (*model)->non_finite_weights();
    EXPECT_EQ(found->count, 32);
    EXPECT_EQ(found->tensor, module + ".weight");
    EXPECT_EQ(found->index, (std::vector<int64_t>{out, 32}));
  }
}

TEST_F(WeightScanTest, ManyAreCountedAndTheFirstIsNamed) {
  const TempFolder folder;
  const std::string golden = GoldenPath("tiny_llama_gqa");
  std::string file = ReadWhole(golden + "/model.safetensors");
  const auto tensors = FileTensors(file);
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const FileTensor& tensor = tensors.at(name);
  for (int64_t element : {5, 70, 71, 300}) Poison(tensor, element, 0, &file);
  Poison(tensors.at("model.norm.weight"), 0, 1, &file);
  folder.Write("config.json", ReadWhole(golden + "/config.json"));
  folder.Write("model.safetensors", file);
  for (int i = 0; i < 5; ++i) {  // threads come in any order
    const auto model = Load(folder.path());
    ASSERT_TRUE(model.ok()) << model.status();
    const auto& found = (*model)->non_finite_weights();
    EXPECT_EQ(found->count, 5);
    EXPECT_EQ(found->tensor, name);
    EXPECT_EQ(found->index, tensor.Index(5));
    EXPECT_EQ(found->Text(),
              "5 weights are not finite (NaN or infinite); the first is '" +
                  name + "'[0, 5] = nan");
  }
}

TEST_F(WeightScanTest, HealthyAndUnscannedModels) {
  const std::string path = GoldenPath("tiny_llama_gqa");
  auto model = Load(path);
  ASSERT_TRUE(model.ok());
  EXPECT_EQ((*model)->non_finite_weights()->count, 0);
  const TempFolder folder;
  const std::string poisoned =
      PoisonedModel(folder, "tiny_llama_gqa", "lm_head.weight", 0);
  const int64_t bytes =
      static_cast<int64_t>(fs::file_size(poisoned + "/model.safetensors"));
  // The limit is on the files' bytes.
  EXPECT_FALSE(Load(poisoned, bytes).value()->non_finite_weights().has_value());
  EXPECT_EQ(Load(poisoned, bytes + 1).value()->non_finite_weights()->count, 1);
  EXPECT_FALSE(Load(poisoned, 0).value()->non_finite_weights().has_value());
}

}  // namespace
}  // namespace qk::testing
