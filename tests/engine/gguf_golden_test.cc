// GGUF files that llama.cpp's converter made of the tiny models
// (tests/goldens/make_gguf_goldens.py) mean the same as the models' folders:
// logits and hook points match transformers in float64.
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/engine/forward_driver.h"

namespace qk::testing {
namespace {

struct Case {
  std::string file;    // in tests/goldens/gguf
  std::string golden;  // in tests/goldens
};

class GgufGoldenTest : public ::testing::TestWithParam<Case> {
 protected:
  GgufGoldenTest()
      : backend_(MakeTestBackend()),
        golden_(OpenSafetensors(
                    GoldenPath(GetParam().golden + "/golden.safetensors"))
                    .value()),
        json_(ReadJson(GoldenPath(GetParam().golden + "/golden.json"))) {}

  void Compare(const std::string& tensor, const std::vector<float>& got,
               absl::string_view kind) {
    const std::vector<float> want = ReadTensor(*golden_, tensor);
    ASSERT_EQ(got.size(), want.size()) << tensor;
    auto& [all_got, all_want] = compared_[std::string(kind)];
    all_got.insert(all_got.end(), got.begin(), got.end());
    all_want.insert(all_want.end(), want.begin(), want.end());
  }

  void CompareFrames(const std::string& prompt, const Recorder& recorder) {
    const char* const kPoints[] = {"hook_q",     "hook_k",     "hook_v",
                                   "hook_rot_q", "hook_rot_k", "hook_z"};
    // There are frames for the prefill and three steps.
    EXPECT_EQ(recorder.frames.size(), 4u * 6 * layers_);
    for (const LayerFrame& frame : recorder.frames) {
      const std::string phase = frame.phase == Phase::kPrefill
                                    ? "prefill"
                                    : absl::StrCat("decode.", frame.step);
      const std::string kind = absl::StrCat(
          "layer.", frame.layer, ".", kPoints[static_cast<int>(frame.point)]);
      Compare(absl::StrCat(prompt, "/", phase, "/", kind), Floats(frame.data),
              kind);
    }
  }

  // Runs the prompt and its three decode steps.
  void Run(const std::shared_ptr<const Model>& model, const char* name) {
    Driven driven(model,
                  ReadPrompt(json_.root().Get("prompts")->Get(name).value()),
                  {}, CaptureAll(model->config()));
    layers_ = model->config().num_layers();
    const int tokens = static_cast<int>(driven.prompt().ids.size());
    std::vector<int> positions(tokens);
    std::iota(positions.begin(), positions.end(), 0);
    driven.Request(positions);
    RunPass({&driven});
    Compare(absl::StrCat(name, "/prefill/logits"), driven.Logits(), "logits");
    for (int step = 0; step < 3; ++step) {
      driven.sequence()->AppendToken(driven.prompt().decode_ids[step]);
      driven.Request({tokens + step});
      RunPass({&driven});
      Compare(absl::StrCat(name, "/decode.", step, "/logits"), driven.Logits(),
              "logits");
    }
    CompareFrames(name, driven.recorder);
  }

  const std::unique_ptr<Backend> backend_;
  const std::unique_ptr<TensorSource> golden_;
  const JsonDocument json_;
  int layers_ = 0;
  // Maps logits and each hook point to all computed and all expected values.
  std::map<std::string, std::pair<std::vector<float>, std::vector<float>>>
      compared_;
};

TEST_P(GgufGoldenTest, LogitsAndHooksEqualTransformers) {
  const auto model =
      LoadGolden(absl::StrCat("gguf/", GetParam().file, "/model.gguf"),
                 ComputeType::kF32, backend_.get());
  ASSERT_NE(model, nullptr);
  Run(model, "p0");
  Run(model, "p1");
  EXPECT_EQ(compared_.size(), 1u + 6 * model->config().num_layers());
  for (const auto& [kind, pair] : compared_) {
    const double nmse = Nmse(pair.first, pair.second);
    EXPECT_TRUE(nmse <= 1e-10) << kind << ": NMSE " << nmse;
  }
}

// The first files match a folder's model. The others have their own goldens,
// because GGUF has no field for something in the folder's config.json, or
// because their weights are rounded: tests/goldens/families/gguf.py.
std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* name :
       {"tiny_llama_gqa", "tiny_llama3_rope", "tiny_llama_headdim",
        "tiny_llama_linear", "tiny_llama_tied", "tiny_llama_yarn", "tiny_qwen2",
        "tiny_qwen3", "tiny_phi3", "tiny_phi3_longrope", "tiny_phi3_partial",
        "tiny_gpt2"}) {
    cases.push_back({name, name});
  }
  for (const char* name : {"gemma2", "gemma3", "gpt_neox", "gpt_neox_serial",
                           "llama_q8_0", "qwen2_f16"}) {
    cases.push_back({name, absl::StrCat("gguf/", name)});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Files, GgufGoldenTest, ::testing::ValuesIn(Cases()),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           return info.param.file;
                         });

}  // namespace
}  // namespace qk::testing
