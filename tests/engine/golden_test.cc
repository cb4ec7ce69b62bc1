// Compares the forward pass with transformers in float64
// (tests/goldens/make_goldens.py): logits and hook points, prefill (two prompts
// of different length in one batch) and three decode steps.
#include <map>
#include <numeric>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "tests/engine/vision_testing.h"

namespace qk::testing {
namespace {

struct Case {
  std::string model;
  ComputeType compute;
  TestBackend backend;
};

class GoldenTest : public ::testing::TestWithParam<Case> {
 protected:
  // Compares each hook point of each layer as one tensor over prefill, decode
  // steps and prompts: a single row may nearly cancel, and then says little in
  // bf16.
  void CheckFrames(const std::vector<Driven*>& batch, double bound) {
    std::map<std::pair<int, int>,
             std::pair<std::vector<float>, std::vector<float>>>
        tensors;
    for (size_t i = 0; i < batch.size(); ++i) {
      const auto& frames = batch[i]->recorder.frames;
      EXPECT_EQ(static_cast<int>(frames.size()),
                layers_ * 6 * 4);  // points x (prefill + 3 steps)
      for (const LayerFrame& frame : frames) {
        const std::string phase = frame.phase == Phase::kPrefill
                                      ? "prefill"
                                      : absl::StrCat("decode.", frame.step);
        const int point = static_cast<int>(frame.point);
        const std::string name =
            absl::StrCat("p", i, "/", phase, "/layer.", frame.layer, ".",
                         kPointNames[point]);
        const std::vector<float> got = Floats(frame.data);
        const std::vector<float> want = ReadTensor(*golden_, name);
        ASSERT_EQ(got.size(), want.size()) << name;
        auto& [all_got, all_want] = tensors[{frame.layer, point}];
        all_got.insert(all_got.end(), got.begin(), got.end());
        all_want.insert(all_want.end(), want.begin(), want.end());
      }
    }
    EXPECT_EQ(static_cast<int>(tensors.size()), layers_ * 6);
    for (const auto& [key, pair] : tensors) {
      const double nmse = Nmse(pair.first, pair.second);
      EXPECT_TRUE(nmse <= bound)
          << "layer " << key.first << " " << kPointNames[key.second]
          << ": NMSE " << nmse;
    }
  }

  std::unique_ptr<TensorSource> golden_;
  int layers_ = 0;  // with attention
};

TEST_P(GoldenTest, LogitsAndHooksEqualTransformers) {
  const Case& c = GetParam();
  const std::unique_ptr<Backend> backend = c.backend.make(2);
  const auto model = LoadGolden(c.model, c.compute, backend.get());
  ASSERT_NE(model, nullptr);
  for (int i = 0; i < model->config().num_layers(); ++i) {
    layers_ += model->config().has_attention(i);
  }
  const JsonDocument json = ReadJson(GoldenPath(c.model + "/golden.json"));
  const JsonValue prompts = json.root().Get("prompts").value();
  golden_ =
      OpenSafetensors(GoldenPath(c.model + "/golden.safetensors")).value();
  const double bound = c.compute == ComputeType::kF32 ? 1e-10 : 1e-4;

  std::vector<std::unique_ptr<Driven>> driven;
  std::vector<Driven*> batch;
  for (const char* name : {"p0", "p1"}) {
    driven.push_back(std::make_unique<Driven>(
        model, ReadPrompt(prompts.Get(name).value()),
        std::vector<DisruptionRule>{}, CaptureAll(model->config()),
        GoldenImages(c.model, name)));
    batch.push_back(driven.back().get());
    std::vector<int> positions(batch.back()->prompt().ids.size());
    std::iota(positions.begin(), positions.end(), 0);
    batch.back()->Request(positions);
  }
  RunPass(batch);
  std::vector<float> logits;
  std::vector<float> want;
  const auto add_logits = [&](const std::string& step) {
    for (size_t i = 0; i < batch.size(); ++i) {
      const std::vector<float> row = batch[i]->Logits();
      logits.insert(logits.end(), row.begin(), row.end());
      const std::vector<float> golden =
          ReadTensor(*golden_, absl::StrCat("p", i, "/", step, "/logits"));
      ASSERT_EQ(row.size(), golden.size());
      want.insert(want.end(), golden.begin(), golden.end());
    }
  };
  add_logits("prefill");
  for (int step = 0; step < 3; ++step) {
    for (Driven* d : batch) {
      d->sequence()->AppendToken(d->prompt().decode_ids[step]);
      d->Request({static_cast<int>(d->prompt().ids.size()) + step});
    }
    RunPass(batch);
    add_logits(absl::StrCat("decode.", step));
  }
  const double nmse = Nmse(logits, want);
  EXPECT_TRUE(nmse <= bound) << "logits: NMSE " << nmse;
  CheckFrames(batch, bound);
  for (Driven* d : batch) {
    for (int64_t fired : d->sequence()->hooks_fired()) {
      EXPECT_EQ(fired, layers_ * 4);  // the sequence's passes
    }
  }
}

// The Llamas run with every kernel. The families, which differ between the
// GEMMs, run with the kernel that the backend chooses.
std::vector<Case> Cases() {
  const TestBackend chosen = ChosenTestBackend();
  std::vector<Case> cases;
  for (const char* model : {"tiny_llama_gqa", "tiny_llama3_rope",
                            "tiny_llama_tied", "tiny_llama_headdim"}) {
    for (const TestBackend& kernel : TestKernels()) {
      if (kernel.name == chosen.name) continue;
      cases.push_back({model, ComputeType::kF32, kernel});
      if (kernel.has_bf16) {
        cases.push_back({model, ComputeType::kBF16, kernel});
      }
    }
  }
  for (const char* model : {"tiny_llama_gqa",
                            "tiny_llama3_rope",
                            "tiny_llama_tied",
                            "tiny_llama_headdim",
                            "tiny_llama_dynamic",
                            "tiny_llama_linear",
                            "tiny_llama_yarn",
                            "tiny_llama_yarn_mscale",
                            "tiny_mistral",
                            "tiny_qwen2",
                            "tiny_qwen2_window",
                            "tiny_qwen3",
                            "tiny_gemma2",
                            "tiny_gemma3",
                            "tiny_gemma3_layer_types",
                            "tiny_gemma3_vl",
                            "tiny_phi3",
                            "tiny_phi3_longrope",
                            "tiny_phi3_partial",
                            "tiny_gpt2",
                            "tiny_gpt2_layer_scale",
                            "tiny_opt",
                            "tiny_opt_post_norm",
                            "tiny_gpt_neo",
                            "tiny_gpt_neox",
                            "tiny_gpt_neox_serial",
                            "tiny_jamba",
                            "tiny_jamba_dense",
                            "tiny_qwen2_vl",
                            "tiny_qwen2_vl_image",
                            "tiny_awq_channel",
                            "tiny_awq_g32",
                            "tiny_awq_g64",
                            "tiny_awq_g128",
                            "tiny_awq_qwen2",
                            "tiny_gptq_channel_asym_desc",
                            "tiny_gptq_channel_sym",
                            "tiny_gptq_g128_asym_desc",
                            "tiny_gptq_g32_asym",
                            "tiny_gptq_g32_sym",
                            "tiny_gptq_g32_sym_desc",
                            "tiny_gptq_g64_sym"}) {
    cases.push_back({model, ComputeType::kF32, chosen});
    if (chosen.has_bf16) cases.push_back({model, ComputeType::kBF16, chosen});
  }
  return cases;
}

std::string NameOf(const ::testing::TestParamInfo<Case>& info) {
  return absl::StrCat(
      info.param.model,
      info.param.compute == ComputeType::kF32 ? "_f32_" : "_bf16_",
      InTestName(info.param.backend));
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, ::testing::ValuesIn(Cases()),
                         NameOf);

TEST(GoldenPatternTest, AttentionProbabilitiesEqualTransformers) {
  const auto backend = MakeTestBackend();
  const auto model =
      LoadGolden("tiny_llama_gqa", ComputeType::kF32, backend.get());
  const JsonDocument json = ReadJson(GoldenPath("tiny_llama_gqa/golden.json"));
  const GoldenPrompt prompt =
      ReadPrompt(json.root().Get("prompts").value().Get("p0").value());
  const auto golden =
      OpenSafetensors(GoldenPath("tiny_llama_gqa/golden.safetensors")).value();
  RunSpec spec;
  spec.tokens = prompt.ids;
  spec.arms.push_back({"clean", model, {}});
  spec.capture = CaptureAll(model->config());
  spec.capture.points = {HookPoint::kPattern};
  spec.capture.phase = 1;
  for (size_t i = 0; i < prompt.ids.size(); ++i) {
    spec.capture.positions.push_back(static_cast<int>(i));
  }
  const Recorder recorder = RunAlone(spec);
  ASSERT_EQ(recorder.frames.size(),
            static_cast<size_t>(model->config().num_layers()));
  for (const LayerFrame& frame : recorder.frames) {
    const std::string name =
        absl::StrCat("p0/prefill/layer.", frame.layer, ".hook_pattern");
    EXPECT_LE(Nmse(Floats(frame.data), ReadTensor(*golden, name)), 1e-10)
        << name;
  }
}

}  // namespace
}  // namespace qk::testing
