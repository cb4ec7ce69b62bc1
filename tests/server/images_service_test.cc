// Images over the wire, with the tiny Qwen2-VL of the goldens.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/engine/vision_testing.h"
#include "tests/server/server_testing.h"

namespace qk::testing {
namespace {

constexpr int kImageToken = 95;

class ImagesTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerOptions options = TinyOptions();
    options.models.push_back(
        {"vl", GoldenModel(kVisionModel), ComputeType::kF32, ""});
    StartServer(options);
    const absl::Status loaded = server_->LoadModels();
    ASSERT_TRUE(loaded.ok()) << loaded.message();
  }

  // The golden's prompt, with its patches.
  static pb::AnalyzeRequest Golden(const std::string& name) {
    pb::AnalyzeRequest request;
    request.set_model("vl");
    const JsonDocument json =
        ReadJson(GoldenPath(absl::StrCat(kVisionModel, "/golden.json")));
    const GoldenPrompt prompt =
        ReadPrompt(json.root().Get("prompts")->Get(name).value());
    for (int32_t id : prompt.ids) {
      request.mutable_input()->mutable_token_ids()->add_ids(id);
    }
    for (const Image& image : GoldenImages(kVisionModel, name)) {
      auto* patches = request.mutable_input()->add_images()->mutable_patches();
      patches->set_frames(image.frames);
      patches->set_rows(image.rows);
      patches->set_columns(image.columns);
      patches->set_values(image.values.data(),
                          image.values.size() * sizeof(float));
    }
    request.mutable_logits()->set_top_n(1);
    return request;
  }

  static pb::AnalyzeRequest WithFile(const std::string& name) {
    pb::AnalyzeRequest request;
    request.set_model("vl");
    for (int id : {1, 9, 92, kImageToken, 93, 5}) {
      request.mutable_input()->mutable_token_ids()->add_ids(id);
    }
    std::ifstream file(GoldenPath("images/" + name), std::ios::binary);
    request.mutable_input()->add_images()->set_encoded(
        std::string(std::istreambuf_iterator<char>(file), {}));
    return request;
  }

  static const pb::Logits* LogitsOf(const Analysis& out) {
    for (const pb::AnalyzeEvent& event : out.events) {
      if (event.has_logits()) return &event.logits();
    }
    return nullptr;
  }

  void ExpectRefused(const pb::AnalyzeRequest& request, grpc::StatusCode code,
                     const std::string& message) {
    const Analysis out = Analyze(request);
    EXPECT_EQ(out.status.error_code(), code);
    EXPECT_TRUE(absl::StrContains(out.status.error_message(), message))
        << out.status.error_message();
  }
};

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
  // The expanded request with its image put back is the same request.
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

TEST_F(ImagesTest, BadImagesAreRefused) {
  const auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  pb::AnalyzeRequest request = WithFile("rgb.png");
  const auto image = [&] { return request.mutable_input()->mutable_images(0); };
  request.set_model("tiny");
  ExpectRefused(request, grpc::StatusCode::FAILED_PRECONDITION,
                "images: model 'tiny' takes none");
  request = WithFile("rgb.png");
  image()->set_sha256("00");
  ExpectRefused(request, kInvalid, "images[0].sha256: '00', but the bytes' is");
  request = WithFile("rgb.png");
  image()->set_max_pixels(0);
  ExpectRefused(request, kInvalid, "images[0].min_pixels, max_pixels: must be");
  request = WithFile("rgb.png");
  image()->set_min_pixels(200 * 200);
  ExpectRefused(request, kInvalid,
                "images[0]: has 660 rows, the model's context of 256 leaves");
  image()->set_encoded("hello");
  ExpectRefused(request, kInvalid, "images[0]: not a PNG or JPEG file");
  image()->clear_encoded();
  ExpectRefused(request, kInvalid,
                "images[0]: exactly one of encoded, patches");
  request = WithFile("rgb.png");
  for (int i = 0; i < 16; ++i) request.mutable_input()->add_images();
  ExpectRefused(request, kInvalid, "images: 17, limit 16");
  request = WithFile("rgb.png");
  request.mutable_input()->mutable_token_ids()->set_ids(3, 5);
  ExpectRefused(request, kInvalid,
                "images: their 54 rows need as many tokens 95, got 0");
}

TEST_F(ImagesTest, BadPatchesAreRefused) {
  const auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  pb::AnalyzeRequest request = Golden("p1");
  const auto patches = [&] {
    return request.mutable_input()->mutable_images(1)->mutable_patches();
  };
  patches()->mutable_values()->pop_back();
  ExpectRefused(request, kInvalid, "images[1].patches.values: 12287 bytes are");
  request = Golden("p1");
  patches()->set_frames(1 << 30);
  patches()->set_rows(1 << 30);
  patches()->set_columns(1 << 30);
  ExpectRefused(request, kInvalid, "images[1]: grid: more than");
  request = Golden("p1");
  patches()->set_rows(-8);
  ExpectRefused(request, kInvalid, "images[1]: grid: expected");
  request = Golden("p1");
  request.mutable_input()->mutable_images(1)->set_min_pixels(5);
  ExpectRefused(request, kInvalid, "images[1]: min_pixels and max_pixels do");
}

}  // namespace
}  // namespace qk::testing
