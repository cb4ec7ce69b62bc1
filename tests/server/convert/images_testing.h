// A server with the tiny Qwen2-VL of the goldens, named "vl", and its prompts.
#ifndef QKSCOPE_TESTS_SERVER_CONVERT_IMAGES_TESTING_H_
#define QKSCOPE_TESTS_SERVER_CONVERT_IMAGES_TESTING_H_

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/engine/vision_testing.h"
#include "tests/server/server_testing.h"

namespace qk::testing {

inline constexpr int kImageToken = 95;

class ImagesTest : public ServerTest {
 protected:
  void SetUp() override { StartVision(TinyOptions()); }

  void StartVision(ServerOptions options) {
    options.models.push_back(
        {"vl", GoldenModel(kVisionModel), ComputeType::kF32, ""});
    StartServer(options);
    const absl::Status loaded = server_->LoadModels();
    ASSERT_TRUE(loaded.ok()) << loaded.message();
  }

  // Returns the golden's prompt with its patches.
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

// The tower's hook points, and their names in the golden.
inline constexpr pb::HookPoint kVisionPoints[] = {
    pb::HOOK_Q,     pb::HOOK_K,     pb::HOOK_V,
    pb::HOOK_ROT_Q, pb::HOOK_ROT_K, pb::HOOK_Z};
inline constexpr int kVisionHeads = 2, kVisionDims = 8;
inline constexpr int kVisionWidth = kVisionHeads * kVisionDims;

// Returns the rows (patches, heads, dims) of one image at a hook point of the
// tower, which transformers computed in float64.
inline std::vector<float> GoldenRows(const std::string& prompt, int image,
                                     int layer, pb::HookPoint point) {
  const auto golden = OpenSafetensors(GoldenPath(absl::StrCat(
                                          kVisionModel, "/golden.safetensors")))
                          .value();
  const std::vector<float> all = ReadTensor(
      *golden, absl::StrCat(prompt, "/prefill/vision.layer.", layer, ".",
                            absl::AsciiStrToLower(pb::HookPoint_Name(point))));
  const std::vector<Image> images = GoldenImages(kVisionModel, prompt);
  auto begin = all.begin();
  for (int i = 0; i < image; ++i) begin += images[i].patches() * kVisionWidth;
  return {begin, begin + images[image].patches() * kVisionWidth};
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_CONVERT_IMAGES_TESTING_H_
