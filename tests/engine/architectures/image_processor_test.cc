// Tests what is read from preprocessor_config.json, what must agree with
// config.json, and what is refused.
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/hf_image_processor.h"
#include "tests/engine/vision_testing.h"

namespace qk::testing {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<ImageProcessing> Read(const std::string& text) {
  VisionConfig vision;
  vision.patch_size = 14;
  vision.temporal_patch_size = 2;
  vision.merge_size = 2;
  QK_ASSIGN_OR_RETURN(const JsonDocument json,
                      JsonDocument::Parse("preprocessor_config", text, {}));
  return ReadImageProcessing(json.root(), vision);
}

// This is the file of Qwen/Qwen2-VL-7B-Instruct.
constexpr char kPublished[] = R"({
  "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14,
  "temporal_patch_size": 2, "merge_size": 2,
  "image_mean": [0.48145466, 0.4578275, 0.40821073],
  "image_std": [0.26862954, 0.26130258, 0.27577711],
  "image_processor_type": "Qwen2VLImageProcessor",
  "processor_class": "Qwen2VLProcessor"})";

TEST(ImageProcessorTest, Published) {
  const auto p = Read(kPublished);
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_EQ(p->min_pixels, 3136);
  EXPECT_EQ(p->max_pixels, 12845056);
  EXPECT_EQ(p->mean, ImageProcessing().mean);
  EXPECT_EQ(p->deviation, ImageProcessing().deviation);
}

TEST(ImageProcessorTest, AsNewerVersionsWriteIt) {
  const auto p = Read(R"({
    "crop_size": null, "data_format": "channels_first", "device": null,
    "default_to_square": true, "disable_grouping": null,
    "do_center_crop": null, "do_convert_rgb": true, "do_normalize": true,
    "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.25, 0],
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "image_std": [0.5, 1, 2], "input_data_format": null, "max_pixels": null,
    "merge_size": 2, "min_pixels": null, "patch_size": 14, "resample": 3,
    "rescale_factor": 0.00392156862745098, "return_tensors": null,
    "size": {"longest_edge": 1000, "shortest_edge": 10},
    "temporal_patch_size": 2})");
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_EQ(p->min_pixels, 10);
  EXPECT_EQ(p->max_pixels, 1000);
  EXPECT_EQ(p->mean, (std::array<double, 3>{0.5, 0.25, 0}));
  EXPECT_EQ(p->deviation, (std::array<double, 3>{0.5, 1, 2}));
}

TEST(ImageProcessorTest, WhatIsMissingHasTransformersDefaults) {
  const auto p = Read("{}");
  ASSERT_TRUE(p.ok()) << p.status();
  EXPECT_EQ(p->min_pixels, 56 * 56);
  EXPECT_EQ(p->max_pixels, 28 * 28 * 1280);
}

struct Bad {
  const char* json;
  const char* message;
};

TEST(ImageProcessorTest, BadFieldsAreNamed) {
  for (const Bad& bad : {
           Bad{R"({"patch_size": 16})",
               "preprocessor_config: patch_size: expected config.json's 14, "
               "got 16"},
           {R"({"merge_size": 1})", "merge_size: expected config.json's 2"},
           {R"({"temporal_patch_size": 1})", "temporal_patch_size: expected"},
           {R"({"patch_size": "14"})", "preprocessor_config: patch_size"},
           {R"({"min_pixels": 0})", "preprocessor_config: min_pixels"},
           {R"({"max_pixels": 12845057})", "preprocessor_config: max_pixels"},
           {R"({"max_pixels": 100.5})", "preprocessor_config: max_pixels"},
           {R"({"min_pixels": 2000, "max_pixels": 1999})",
            "min_pixels: 2000 is over max_pixels, 1999"},
           {R"({"min_pixels": 11, "size": {"shortest_edge": 10}})",
            "min_pixels: 11, but size.shortest_edge is 10"},
           {R"({"size": {"longest_edge": 0}})",
            "preprocessor_config: size.longest_edge"},
           {R"({"size": {"height": 224}})", "size: height: a field that is"},
           {R"({"size": 224})", "preprocessor_config: size"},
           {R"({"image_mean": [0.5, 0.5]})",
            "preprocessor_config: image_mean: expected 3 numbers, got 2"},
           {R"({"image_mean": [0.5, 0.5, "a"]})", "image_mean[2]"},
           {R"({"image_mean": [0.5, 0.5, 1e300]})", "image_mean: must be in"},
           {R"({"image_mean": 0.5})", "preprocessor_config: image_mean"},
           {R"({"image_std": [0.5, 0, 1]})", "image_std: must be > 1e-6"},
           {R"({"image_std": [0.5, -1, 1]})", "image_std: must be > 1e-6"},
           {R"({"resample": 2})", "resample: 2 is not implemented"},
           {R"({"rescale_factor": 0.5})", "rescale_factor: 0.5 is not"},
           {R"({"do_resize": false})", "do_resize: false is not implemented"},
           {R"({"do_normalize": false})", "do_normalize: false is not"},
           {R"({"do_center_crop": true})",
            "preprocessor_config: do_center_crop: a field that is not "
            "implemented, got true"},
           {R"({"do_\n": true})", R"(do_\n: a field that is not implemented)"},
           {R"({"image_processor_type": "CLIPImageProcessor"})",
            "image_processor_type: \"CLIPImageProcessor\" is not implemented"},
           {"[]", "preprocessor_config"},
           {"{", "preprocessor_config"},
       }) {
    const auto p = Read(bad.json);
    ASSERT_FALSE(p.ok()) << bad.json;
    EXPECT_TRUE(absl::StrContains(p.status().message(), bad.message))
        << p.status();
    EXPECT_TRUE(absl::StartsWith(p.status().message(), "preprocessor_config"))
        << p.status();
  }
}

// A folder with the golden's files and a preprocessor_config.json.
class FolderTest : public ::testing::Test {
 protected:
  FolderTest()
      : folder_(fs::path(::testing::TempDir()) /
                absl::StrCat("image_processor_", ::getpid())) {
    fs::create_directories(folder_);
  }
  ~FolderTest() override { fs::remove_all(folder_); }

  absl::StatusOr<ModelDescription> Describe(const std::string& golden,
                                            const std::string& processor) {
    for (const char* name : {"config.json", "model.safetensors"}) {
      fs::remove(folder_ / name);
      fs::create_symlink(GoldenPath(absl::StrCat(golden, "/", name)),
                         folder_ / name);
    }
    std::ofstream(folder_ / "preprocessor_config.json") << processor;
    return DescribeModel(folder_.string(), ComputeType::kF32);
  }

  const fs::path folder_;
};

TEST_F(FolderTest, IsReadBesideTheConfiguration) {
  const auto model = Describe(kVisionModel, R"({"max_pixels": 5000})");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->config.vision.processing.max_pixels, 5000);
  const auto bad = Describe(kVisionModel, R"({"patch_size": 14})");
  EXPECT_TRUE(absl::StrContains(
      bad.status().message(),
      "preprocessor_config: patch_size: expected config.json's 4, got 14"))
      << bad.status();
}

TEST_F(FolderTest, OfAModelWithoutATowerItIsNotLookedAt) {
  const auto model = Describe("tiny_llama_gqa", "{\"patch_size\": 3");
  EXPECT_TRUE(model.ok()) << model.status();
}

}  // namespace
}  // namespace qk::testing
