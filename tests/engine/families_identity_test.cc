// The bytes are the same in every family: logits and all hook points of a
// prompt and three decode steps do not depend on the batch, the threads or the
// capture.
#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/engine/forward_driver.h"

namespace qk::testing {
namespace {

struct Case {
  std::string golden;
  ComputeType compute;
};

// The logits of all rows and the frames of a sequence, in order of arrival.
class Recording {
 public:
  void AddLogits(const Driven& driven) {
    const std::vector<float> logits = driven.Logits();
    logits_.append(reinterpret_cast<const char*>(logits.data()),
                   4 * logits.size());
  }
  void AddFrames(const Driven& driven) {
    for (const LayerFrame& f : driven.recorder.frames) {
      absl::StrAppend(&frames_, f.layer, " ", static_cast<int>(f.point), " ",
                      static_cast<int>(f.phase), " ", f.step, ":", f.data);
    }
  }
  const std::string& logits() const { return logits_; }
  const std::string& frames() const { return frames_; }

 private:
  std::string logits_, frames_;
};

class FamiliesIdentityTest : public ::testing::TestWithParam<Case> {
 protected:
  FamiliesIdentityTest() {
    const JsonDocument json =
        ReadJson(GoldenPath(GetParam().golden + "/golden.json"));
    const JsonValue prompts = json.root().Get("prompts").value();
    p0_ = ReadPrompt(prompts.Get("p0").value());
    p1_ = ReadPrompt(prompts.Get("p1").value());
  }

  // Returns the `n` ids of p1 after the first `from`.
  GoldenPrompt Cut(int from, int n) const {
    GoldenPrompt cut = p1_;
    cut.ids.assign(p1_.ids.begin() + from, p1_.ids.begin() + from + n);
    return cut;
  }

  static std::unique_ptr<Driven> Drive(
      const std::shared_ptr<const Model>& model, const GoldenPrompt& prompt,
      bool captures) {
    CaptureSpec capture = CaptureAll(model->config());
    capture.off = !captures;
    auto driven = std::make_unique<Driven>(
        model, prompt, std::vector<DisruptionRule>{}, capture);
    std::vector<int> positions(prompt.ids.size());
    std::iota(positions.begin(), positions.end(), 0);
    driven->Request(positions);
    return driven;
  }

  static void Append(Driven* driven, int step) {
    driven->sequence()->AppendToken(driven->prompt().decode_ids[step]);
    driven->Request({static_cast<int>(driven->prompt().ids.size()) + step});
  }

  // Runs p0 among `others`; the last of them starts a step later than the rest.
  Recording Run(const std::shared_ptr<const Model>& model, bool captures,
                const std::vector<GoldenPrompt>& others) const {
    std::vector<std::unique_ptr<Driven>> driven;
    for (const GoldenPrompt& prompt : others) {
      driven.push_back(Drive(model, prompt, captures));
    }
    const auto p0 = Drive(model, p0_, captures);
    std::vector<Driven*> batch;
    for (const auto& d : driven) batch.push_back(d.get());
    Driven* const late = batch.empty() ? nullptr : batch.back();
    if (late != nullptr) batch.pop_back();
    batch.insert(batch.begin() + batch.size() / 2, p0.get());
    Recording recording;
    RunPass(batch);
    recording.AddLogits(*p0);
    for (int step = 0; step < 3; ++step) {
      for (Driven* d : batch) Append(d, d == late ? step - 1 : step);
      if (step == 0 && late != nullptr) batch.insert(batch.begin(), late);
      RunPass(batch);
      recording.AddLogits(*p0);
    }
    recording.AddFrames(*p0);
    return recording;
  }

  GoldenPrompt p0_, p1_;
};

TEST_P(FamiliesIdentityTest, AloneInABatchOnOtherThreadsAndWithoutCapture) {
  const auto two = MakeTestBackend(2), one = MakeTestBackend(1);
  const auto model =
      LoadGolden(GetParam().golden, GetParam().compute, two.get());
  const auto model_one =
      LoadGolden(GetParam().golden, GetParam().compute, one.get());
  ASSERT_NE(model, nullptr);
  ASSERT_NE(model_one, nullptr);
  const Recording alone = Run(model, true, {});
  EXPECT_FALSE(alone.logits().empty());
  EXPECT_FALSE(alone.frames().empty());
  const std::vector<GoldenPrompt> others = {p1_,       Cut(3, 1),  p0_,
                                            Cut(1, 2), Cut(2, 17), Cut(0, 9)};
  for (const auto& [name, other] :
       {std::pair{"again", Run(model, true, {})},
        std::pair{"one thread", Run(model_one, true, {})},
        std::pair{"batch", Run(model, true, others)},
        std::pair{"batch, one thread", Run(model_one, true, others)}}) {
    EXPECT_TRUE(alone.logits() == other.logits()) << name;
    EXPECT_TRUE(alone.frames() == other.frames()) << name;
  }
  for (const auto& [name, other] :
       {std::pair{"alone", Run(model, false, {})},
        std::pair{"batch", Run(model, false, others)}}) {
    EXPECT_TRUE(alone.logits() == other.logits()) << "not captured, " << name;
    EXPECT_TRUE(other.frames().empty());
  }
}

// The last layer runs on after attention with the rows that logits come from,
// which may be none. They and the frames do not depend on which those are.
TEST_P(FamiliesIdentityTest, WhicheverRowsHaveLogits) {
  const auto backend = MakeTestBackend(2);
  const auto model =
      LoadGolden(GetParam().golden, GetParam().compute, backend.get());
  ASSERT_NE(model, nullptr);
  const int last = static_cast<int>(p0_.ids.size()) - 1;
  const auto all = Drive(model, p0_, true);
  RunPass({all.get()});
  const std::vector<float> want = all->Logits();
  const size_t vocab = want.size() / p0_.ids.size();
  Recording frames;
  frames.AddFrames(*all);
  ASSERT_FALSE(frames.frames().empty());
  for (const std::vector<int>& positions :
       {std::vector<int>{}, {last}, {0, last}, {last, 1, last}}) {
    const auto before = Drive(model, p1_, false),
               after = Drive(model, p0_, true);
    before->Request({2});
    after->Request({});
    const auto some = Drive(model, p0_, true);
    some->Request(positions);
    RunPass({before.get(), some.get(), after.get()});
    std::vector<float> wanted;
    for (int position : positions) {
      wanted.insert(wanted.end(), want.begin() + position * vocab,
                    want.begin() + (position + 1) * vocab);
    }
    EXPECT_TRUE(some->Logits() == wanted) << positions.size() << " rows";
    EXPECT_EQ(before->Logits().size(), vocab);
    for (const auto* driven : {some.get(), after.get()}) {
      Recording other;
      other.AddFrames(*driven);
      EXPECT_TRUE(other.frames() == frames.frames());
    }
    // Nothing is missing where the next token attends to.
    some->sequence()->AppendToken(p0_.decode_ids[0]);
    some->Request({last + 1});
    RunPass({some.get()});
    const auto again = Drive(model, p0_, true);
    RunPass({again.get()});
    again->sequence()->AppendToken(p0_.decode_ids[0]);
    again->Request({last + 1});
    RunPass({again.get()});
    EXPECT_TRUE(some->Logits() == again->Logits());
  }
  // A sequence alone that asks for nothing.
  const auto none = Drive(model, p0_, true);
  none->Request({});
  RunPass({none.get()});
  Recording other;
  other.AddFrames(*none);
  EXPECT_TRUE(other.frames() == frames.frames());
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* golden : {"tiny_llama3_rope",
                             "tiny_llama_dynamic",
                             "tiny_llama_headdim",
                             "tiny_llama_linear",
                             "tiny_llama_tied",
                             "tiny_llama_yarn_mscale",
                             "tiny_mistral",
                             "tiny_qwen2",
                             "tiny_qwen2_window",
                             "tiny_qwen3",
                             "tiny_gemma2",
                             "tiny_gemma3",
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
                             "tiny_awq_g32",
                             "tiny_gptq_g128_asym_desc"}) {
    cases.push_back({golden, ComputeType::kF32});
    cases.push_back({golden, ComputeType::kBF16});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Families, FamiliesIdentityTest,
                         ::testing::ValuesIn(Cases()),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           return absl::StrCat(
                               info.param.golden,
                               info.param.compute == ComputeType::kF32
                                   ? "_f32"
                                   : "_bf16");
                         });

}  // namespace
}  // namespace qk::testing
