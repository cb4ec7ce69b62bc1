// Compares models with packed layers with the same models with plain layers:
// arms of one request, equal bit for bit.
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/model/packed_twins.h"

namespace qk::testing {
namespace {

class TwinsTest : public ::testing::TestWithParam<PackedCase> {};

TEST_P(TwinsTest, ArmsOfBothAreEqualBitForBit) {
  const auto backend = MakeTestBackend();
  Twins twins(GetParam());
  ASSERT_GE(twins.layers(), 2u);
  for (const ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
    const auto full = twins.LoadFull(type, backend.get());
    const auto packed = twins.LoadPacked(type, backend.get());
    ASSERT_TRUE(full != nullptr && packed != nullptr);
    EXPECT_EQ(full->device_bytes(), packed->device_bytes());
    EXPECT_EQ(full->description().parameters, packed->description().parameters);
    EXPECT_EQ(full->description().bytes_estimate,
              packed->description().bytes_estimate);
    RunSpec spec;
    for (int i = 0; i < 11; ++i) spec.tokens.push_back(7 * i % 97);
    spec.arms = {{"full", full, {}}, {"packed", packed, {}}};
    spec.capture = CaptureAll(full->config());
    spec.baseline = 0;
    spec.logits = LogitsSpec{97, {0, 10}};
    spec.generate.emplace();
    spec.generate->max_new_tokens = 4;
    const Recorder r = RunAlone(spec);
    std::map<std::string, std::string> frames[2];
    for (const LayerFrame& f : r.frames) {
      frames[f.arm][absl::StrCat(f.layer, " ", static_cast<int>(f.point), " ",
                                 f.step)] = f.data;
    }
    EXPECT_FALSE(frames[0].empty());
    EXPECT_EQ(frames[0].size() + frames[1].size(), r.frames.size());
    EXPECT_EQ(frames[0], frames[1]);
    ASSERT_EQ(r.logits.size(), 2u);
    ASSERT_TRUE(r.logits.at(0).size() == 2 && r.logits.at(1).size() == 2);
    EXPECT_EQ(r.logits.at(0)[0].logprobs.size(), 97u);
    for (size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(r.logits.at(0)[i].ids, r.logits.at(1)[i].ids);
      EXPECT_EQ(r.logits.at(0)[i].logprobs, r.logits.at(1)[i].logprobs);
    }
    ASSERT_EQ(r.comparisons.size(), 2u);
    for (const ComparisonResult& comparison : r.comparisons) {
      EXPECT_EQ(comparison.kl, std::vector<float>(11, 0.0f));
    }
    std::vector<int32_t> ids[2];
    for (const TokenEvent& token : r.tokens) ids[token.arm].push_back(token.id);
    EXPECT_EQ(ids[0].size(), 4u);
    EXPECT_EQ(ids[0], ids[1]);
  }
}

using Method = Int4Format::Method;

constexpr char kGptqConfig[] = R"("quant_method":"gptq","bits":4,)";

std::vector<PackedCase> Cases() {
  static const std::string* const texts = new std::string[4]{
      absl::StrCat(kGptqConfig, R"("group_size":32,"desc_act":true,)",
                   R"("sym":false)"),
      absl::StrCat(kGptqConfig, R"("group_size":32,)",
                   R"("checkpoint_format":"gptq_v2")"),
      absl::StrCat(kGptqConfig, R"("group_size":-1,"desc_act":true)"),
      // Only whole components of "self_attn.q_proj" count.
      absl::StrCat(kAwqConfig,
                   R"(,"modules_to_not_convert":["mlp","proj","attn.q"])")};
  return {
      kPhi3Awq,
      {"Phi3FusedGptqActOrder",
       "tiny_phi3",
       {"self_attn.qkv_proj", "self_attn.o_proj"},
       {Method::kGptq, 32, true, true},
       texts[0].c_str()},
      {"GptNeoXInterleavedGptqV2",
       "tiny_gpt_neox",
       {"attention.query_key_value", "attention.dense"},
       {Method::kGptq, 32, false, false},
       texts[1].c_str()},
      {"Gpt2TransposedGptqChannel",
       "tiny_gpt2",
       {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"},
       {Method::kGptq, -1, false, true},
       texts[2].c_str()},
      {"LlamaSomeModulesPlain",
       "tiny_llama_gqa",
       {"q_proj", "k_proj", "o_proj"},
       {Method::kAwq, 32, false, false},
       texts[3].c_str()},
  };
}

INSTANTIATE_TEST_SUITE_P(All, TwinsTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST(QuantizedArmTest, IsComparedWithTheFullModel) {
  const auto backend = MakeTestBackend();
  Twins twins(kPhi3Awq);
  const auto full = LoadGolden("tiny_phi3", ComputeType::kF32, backend.get());
  const auto packed = twins.LoadPacked(ComputeType::kF32, backend.get());
  ASSERT_TRUE(full != nullptr && packed != nullptr);
  RunSpec spec;
  spec.tokens = {1, 5, 9, 30};
  spec.arms = {{"full", full, {}}, {"awq", packed, {}}};
  spec.capture.off = true;
  spec.baseline = 0;
  const Recorder r = RunAlone(spec);
  double kl = 0;
  for (const ComparisonResult& comparison : r.comparisons) {
    if (comparison.arm == 1) {
      for (float value : comparison.kl) kl += value;
    }
  }
  EXPECT_GT(kl, 0);  // other weights give other numbers
}

}  // namespace
}  // namespace qk::testing
