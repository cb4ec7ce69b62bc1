// Tests images over the wire, with the tiny Qwen2-VL of the goldens.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "tests/server/convert/images_testing.h"

namespace qk::testing {
namespace {

TEST_F(ImagesTest, PatchesGiveTransformersLogits) {
  const auto golden = OpenSafetensors(GoldenPath(absl::StrCat(
                                          kVisionModel, "/golden.safetensors")))
                          .value();
  for (const std::string name : {"p0", "p1"}) {
    const Analysis out = Analyze(Golden(name));
    ASSERT_TRUE(out.status.ok()) << out.status.error_message();
    const std::vector<float> logits =
        ReadTensor(*golden, name + "/prefill/logits");
    const auto row = logits.end() - 97;
    double sum = 0;
    for (auto x = row; x != logits.end(); ++x) sum += std::exp(double{*x});
    const auto top = std::max_element(row, logits.end());
    const pb::Logits* got = LogitsOf(out);
    ASSERT_NE(got, nullptr);
    EXPECT_EQ(got->positions(0).ids(0), top - row);
    EXPECT_NEAR(got->positions(0).logprobs(0), *top - std::log(sum), 1e-4);
  }
}

TEST_F(ImagesTest, OnePlaceholderIsRepeated) {
  const Analysis out = Analyze(WithFile("rgb.png"));
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  // 61 x 37 pixels grow to 72 x 48: 9 x 6 merged patches of 8 x 8 pixels.
  const pb::Started& started = out.events[1].started();
  EXPECT_EQ(std::count(started.token_ids().begin(), started.token_ids().end(),
                       kImageToken),
            54);
  const pb::Input& input = started.expanded().input();
  EXPECT_EQ(input.token_ids().ids_size(), 59);
  ASSERT_EQ(input.images_size(), 1);
  EXPECT_EQ(input.images(0).sha256().size(), 64u);
  EXPECT_EQ(input.images(0).source_case(), pb::Image::SOURCE_NOT_SET);
  // The expanded request with its image put back equals the original request.
  pb::AnalyzeRequest again = started.expanded();
  again.mutable_input()->mutable_images(0)->set_encoded(
      WithFile("rgb.png").input().images(0).encoded());
  const Analysis second = Analyze(again);
  ASSERT_TRUE(second.status.ok()) << second.status.error_message();
  ASSERT_EQ(second.layers().size(), out.layers().size());
  for (size_t i = 0; i < out.layers().size(); ++i) {
    EXPECT_EQ(second.layers()[i]->data(), out.layers()[i]->data());
  }
  *again.mutable_input()->mutable_images(0) =
      WithFile("yuv444.jpg").input().images(0);
  const Analysis other = Analyze(again);
  ASSERT_TRUE(other.status.ok()) << other.status.error_message();
  EXPECT_NE(other.layers()[0]->data(), out.layers()[0]->data());
}

// Its file has a vision tower, which the loader ignores.
TEST_F(ImagesTest, Gemma3TakesTextsOnly) {
  ServerOptions options = TinyOptions();
  options.models.push_back(
      {"gemma3", GoldenModel("tiny_gemma3_vl"), ComputeType::kF32, ""});
  StartVision(options);
  pb::AnalyzeRequest request = WithFile("rgb.png");
  request.set_model("gemma3");
  ExpectRefused(request, grpc::StatusCode::FAILED_PRECONDITION,
                "input.images: model 'gemma3' takes no images");
  request.mutable_input()->clear_images();
  const Analysis out = Analyze(request);
  EXPECT_TRUE(out.status.ok()) << out.status.error_message();
}

TEST_F(ImagesTest, BadImagesAreRefused) {
  const auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  pb::AnalyzeRequest request = WithFile("rgb.png");
  const auto image = [&] { return request.mutable_input()->mutable_images(0); };
  request.set_model("tiny");
  ExpectRefused(request, grpc::StatusCode::FAILED_PRECONDITION,
                "input.images: model 'tiny' takes no images");
  request = WithFile("rgb.png");
  image()->set_sha256("00");
  ExpectRefused(request, kInvalid,
                "input.images[0].sha256: got '00', but that of the bytes is");
  request = WithFile("rgb.png");
  image()->set_max_pixels(0);
  ExpectRefused(
      request, kInvalid,
      "input.images[0].max_pixels: min_pixels and max_pixels must be");
  request = WithFile("rgb.png");
  image()->set_min_pixels(200 * 200);
  ExpectRefused(
      request, kInvalid,
      "input.images[0]: has 660 rows, but the model's context of 256 leaves");
  image()->set_encoded("hello");
  ExpectRefused(request, kInvalid,
                "input.images[0].encoded: not a PNG or JPEG file");
  image()->clear_encoded();
  ExpectRefused(request, kInvalid,
                "input.images[0]: exactly one of encoded and patches");
  request = WithFile("rgb.png");
  for (int i = 0; i < 16; ++i) request.mutable_input()->add_images();
  ExpectRefused(request, kInvalid, "input.images: got 17, limit 16");
  request = WithFile("rgb.png");
  request.mutable_input()->mutable_token_ids()->set_ids(3, 5);
  ExpectRefused(request, kInvalid,
                "input.images: their 54 rows need as many tokens 95, got 0");
}

TEST_F(ImagesTest, BadPatchesAreRefused) {
  const auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  pb::AnalyzeRequest request = Golden("p1");
  const auto patches = [&] {
    return request.mutable_input()->mutable_images(1)->mutable_patches();
  };
  patches()->mutable_values()->pop_back();
  ExpectRefused(request, kInvalid,
                "input.images[1].patches.values: must be a multiple of 4");
  request = Golden("p1");
  patches()->set_frames(1 << 30);
  patches()->set_rows(1 << 30);
  patches()->set_columns(1 << 30);
  ExpectRefused(request, kInvalid, "input.images[1]: grid: more than");
  request = Golden("p1");
  patches()->set_rows(-8);
  ExpectRefused(request, kInvalid, "input.images[1]: grid: expected");
  request = Golden("p1");
  request.mutable_input()->mutable_images(1)->set_min_pixels(5);
  ExpectRefused(request, kInvalid, "input.images[1].min_pixels: must not");
}

TEST_F(ImagesTest, TheModelsFolderSaysHowImagesAreResized) {
  namespace fs = std::filesystem;
  const fs::path folder =
      fs::path(::testing::TempDir()) / absl::StrCat("images_", ::getpid());
  fs::create_directories(folder);
  for (const char* name : {"config.json", "model.safetensors"}) {
    fs::create_symlink(GoldenPath(absl::StrCat(kVisionModel, "/", name)),
                       folder / name);
  }
  std::ofstream(folder / "preprocessor_config.json")
      << R"({"min_pixels": 64, "max_pixels": 1024})";
  ServerOptions options = TinyOptions();
  options.models.push_back({"small", folder.string(), ComputeType::kF32, ""});
  StartServer(options);
  const absl::Status loaded = server_->LoadModels();
  fs::remove_all(folder);
  ASSERT_TRUE(loaded.ok()) << loaded.message();
  pb::AnalyzeRequest request = WithFile("rgb.png");
  request.set_model("small");
  const Analysis out = Analyze(request);
  ASSERT_TRUE(out.status.ok()) << out.status.error_message();
  // 61 x 37 pixels shrink to 40 x 24: 5 x 3 merged patches of 8 x 8 pixels.
  const pb::Started& started = out.events[1].started();
  EXPECT_EQ(std::count(started.token_ids().begin(), started.token_ids().end(),
                       kImageToken),
            15);
  EXPECT_EQ(started.expanded().input().images(0).min_pixels(), 64);
  EXPECT_EQ(started.expanded().input().images(0).max_pixels(), 1024);
  // A request may override this limit.
  request.mutable_input()->mutable_images(0)->set_max_pixels(1 << 20);
  const Analysis large = Analyze(request);
  ASSERT_TRUE(large.status.ok()) << large.status.error_message();
  EXPECT_EQ(large.events[1].started().token_ids_size(), 5 + 8 * 5);
}

TEST_F(ImagesTest, TheModelsTowerIsDescribed) {
  grpc::ClientContext context;
  pb::GetModelRequest request;
  pb::ModelInfo model;
  request.set_model("vl");
  ASSERT_TRUE(stub_->GetModel(&context, request, &model).ok());
  const pb::VisionInfo& vision = model.vision();
  EXPECT_EQ(vision.num_layers(), 2);
  EXPECT_EQ(vision.num_heads(), 2);
  EXPECT_EQ(vision.head_dim(), 8);
  EXPECT_EQ(vision.hidden_size(), 16);
  EXPECT_EQ(vision.output_size(), 32);
  EXPECT_EQ(vision.patch_size(), 4);
  EXPECT_EQ(vision.temporal_patch_size(), 2);
  EXPECT_EQ(vision.merge_size(), 2);
  EXPECT_EQ(vision.channels(), 3);
  EXPECT_EQ(vision.image_token(), kImageToken);
  EXPECT_EQ(vision.min_pixels(), 56 * 56);
  EXPECT_EQ(vision.max_pixels(), 28 * 28 * 1280);
  grpc::ClientContext second;
  request.set_model("tiny");
  ASSERT_TRUE(stub_->GetModel(&second, request, &model).ok());
  EXPECT_FALSE(model.has_vision());
}

}  // namespace
}  // namespace qk::testing
