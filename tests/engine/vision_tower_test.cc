// Compares the vision tower with transformers in float64, and tests that an
// image's rows are independent of other images.
#include <random>

#include "tests/engine/vision_testing.h"

namespace qk::testing {
namespace {

class VisionTowerTest : public ::testing::TestWithParam<ComputeType> {};

INSTANTIATE_TEST_SUITE_P(Types, VisionTowerTest,
                         ::testing::Values(ComputeType::kF32,
                                           ComputeType::kBF16),
                         [](const auto& info) {
                           return info.param == ComputeType::kF32 ? "f32"
                                                                  : "bf16";
                         });

TEST_P(VisionTowerTest, HooksAndEmbeddingsEqualTransformers) {
  const double bound = GetParam() == ComputeType::kF32 ? 1e-10 : 1e-4;
  const auto backend = MakeTestBackend(2);
  const auto model = LoadGolden(kVisionModel, GetParam(), backend.get());
  ASSERT_NE(model, nullptr);
  const auto golden =
      OpenSafetensors(GoldenPath("tiny_qwen2_vl_image/golden.safetensors"))
          .value();
  for (const std::string prompt : {"p0", "p1"}) {
    const TowerOutput out =
        RunTower(*model, GoldenImages(kVisionModel, prompt));
    const std::string prefix = prompt + "/prefill/vision.";
    EXPECT_EQ(out.hooks.size(), 2u * 6u);
    for (const auto& [key, got] : out.hooks) {
      const std::string name = absl::StrCat(prefix, "layer.", key.first, ".",
                                            kPointNames[key.second]);
      const double nmse = Nmse(got, ReadTensor(*golden, name));
      EXPECT_TRUE(nmse <= bound) << name << ": NMSE " << nmse;
    }
    const double nmse =
        Nmse(out.embeddings, ReadTensor(*golden, prefix + "image_embeds"));
    EXPECT_TRUE(nmse <= bound) << prompt << " embeddings: NMSE " << nmse;
  }
}

// Makes a random image, larger than an attention tile and an MLP tile.
Image LargeImage(const VisionConfig& config, int frames) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  Image image{frames, 18, 16, {}};
  for (int64_t i = 0; i < image.patches() * config.patch_values(); ++i) {
    image.values.push_back(normal(random));
  }
  return image;
}

TEST_P(VisionTowerTest, AnImagesRowsAreTheSameBesideOthers) {
  const auto one = MakeTestBackend(1), two = MakeTestBackend(2);
  const auto model = LoadGolden(kVisionModel, GetParam(), one.get());
  const auto other = LoadGolden(kVisionModel, GetParam(), two.get());
  ASSERT_NE(model, nullptr);
  std::vector<Image> images = GoldenImages(kVisionModel, "p1");
  images.push_back(LargeImage(model->config().vision, 1));
  images.push_back(GoldenImages(kVisionModel, "p0")[0]);
  const TowerOutput all = RunTower(*other, images);
  TowerOutput joined;
  for (const Image& image : images) {
    const TowerOutput alone = RunTower(*model, {image});
    for (const auto& [key, rows] : alone.hooks) {
      auto& to = joined.hooks[key];
      to.insert(to.end(), rows.begin(), rows.end());
    }
    joined.embeddings.insert(joined.embeddings.end(), alone.embeddings.begin(),
                             alone.embeddings.end());
  }
  EXPECT_EQ(all.hooks.size(), 2u * 6u);
  EXPECT_TRUE(joined.hooks == all.hooks);
  EXPECT_FALSE(all.embeddings.empty());
  EXPECT_TRUE(joined.embeddings == all.embeddings);
}

TEST_P(VisionTowerTest, AFrameSeesNoOtherFrame) {
  const auto backend = MakeTestBackend(2);
  const auto model = LoadGolden(kVisionModel, GetParam(), backend.get());
  ASSERT_NE(model, nullptr);
  const Image whole = LargeImage(model->config().vision, 3);
  std::vector<Image> frames;
  const auto size = static_cast<int64_t>(whole.values.size()) / 3;
  for (int i = 0; i < 3; ++i) {
    frames.push_back({1,
                      18,
                      16,
                      {whole.values.begin() + i * size,
                       whole.values.begin() + (i + 1) * size}});
  }
  const std::vector<float> together = RunTower(*model, {whole}).embeddings;
  EXPECT_FALSE(together.empty());
  EXPECT_TRUE(together == RunTower(*model, frames).embeddings);
}

}  // namespace
}  // namespace qk::testing
