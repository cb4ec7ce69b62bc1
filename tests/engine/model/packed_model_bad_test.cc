// Tests checkpoints whose packed layers do not fit their configuration.
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "tests/engine/model/packed_twins.h"

namespace qk::testing {
namespace {

constexpr char kModule[] = "model.layers.0.self_attn.o_proj";

struct Bad {
  const char* name;
  std::function<void(Twins&)> change;
  const char* error;  // "": none
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

// Replaces `from` with `to` in the configuration.
auto Configure(const char* from, const char* to) {
  return [=](Twins& twins) {
    EXPECT_EQ(absl::StrReplaceAll({{from, to}}, &twins.packed_config()), 1);
  };
}

auto Put(const std::string& name, const FileTensor& tensor) {
  return [=](Twins& twins) { twins.packed_tensors[name] = tensor; };
}

std::vector<Bad> BadModels() {
  const std::string module = kModule;
  const FileTensor plain =
      MakeTensor("F32", {32, 32}, std::vector<float>(32 * 32));
  const FileTensor integers =
      MakeTensor("I32", {32, 32}, std::vector<int32_t>(32 * 32));
  std::vector<float> bias(32);
  const FileTensor zeros = MakeTensor("F32", {32}, bias);
  bias[31] = 1e-30f;
  const FileTensor not_zeros = MakeTensor("F32", {32}, bias);
  const auto unimplemented = absl::StatusCode::kUnimplemented;
  return {
      {"Good", [](Twins&) {}, ""},
      {"SpareBiasOfZeros", Put(module + ".bias", zeros), ""},
      {"PositionIds", Put("model.position_ids", integers), ""},
      {"SpareBias", Put(module + ".bias", not_zeros),
       "extra 'model.layers.0.self_attn.o_proj.bias'"},
      {"BiasOfAPlainLayer", Put("model.layers.0.mlp.down_proj.bias", zeros),
       "extra 'model.layers.0.mlp.down_proj.bias'"},
      {"PlainBesidePacked", Put(module + ".weight", plain),
       "extra 'model.layers.0.self_attn.o_proj.q"},
      {"WordsAsWeight",
       [=](Twins& twins) {
         for (const char* part : {".qweight", ".qzeros", ".scales"}) {
           twins.packed_tensors.erase(module + part);
         }
         twins.packed_tensors[module + ".weight"] = integers;
       },
       "'model.layers.0.self_attn.o_proj.weight': expected a floating-point "
       "type, got I32"},
      {"NoLayer",
       [=](Twins& twins) {
         for (const char* part : {".qweight", ".qzeros", ".scales"}) {
           twins.packed_tensors.erase(module + part);
         }
       },
       "missing 'model.layers.0.self_attn.o_proj.weight'; expected [32,32]"},
      {"NoScales",
       [=](Twins& twins) { twins.packed_tensors.erase(module + ".scales"); },
       "missing 'model.layers.0.self_attn.o_proj.scales'; expected [1,32]"},
      {"GroupIndexInAwq", Put(module + ".g_idx", integers),
       "extra 'model.layers.0.self_attn.o_proj.g_idx'"},
      {"LayerTooMany", Put("model.layers.9.self_attn.o_proj.qweight", integers),
       "extra 'model.layers.9.self_attn.o_proj.qweight'"},
      {"PackedHead", Put("lm_head.qweight", integers),
       "extra 'lm_head.qweight'"},
      {"NotInConfig",
       [](Twins& twins) {
         twins.packed_config() = ReadFile(GoldenPath("tiny_phi3/config.json"));
       },
       "missing 'model.layers.0.self_attn.qkv_proj.weight'; expected [64,32]"},
      {"NotToBeConverted",
       Configure(R"("bits":4)",
                 R"("bits":4,"modules_to_not_convert":["o_proj"])"),
       "missing 'model.layers.0.self_attn.o_proj.weight'"},
      {"ThreeBits", Configure(R"("bits":4)", R"("bits":3)"),
       "bits: 3 is not implemented", unimplemented},
      {"EightBits", Configure(R"("bits":4)", R"("bits":8)"),
       "bits: 8 is not implemented", unimplemented},
      {"OtherGroupSize", Configure(R"("group_size":32)", R"("group_size":64)"),
       "'model.layers.0.self_attn.qkv_proj': 32 inputs are not a whole number "
       "of groups of 64"},
      {"OtherMethod",
       Configure(R"("quant_method":"awq","bits":4,"group_size":32,)"
                 R"("version":"gemm")",
                 R"("quant_method":"gptq","bits":4,"group_size":32)"),
       "'model.layers.0.self_attn.qkv_proj.qweight': expected [4,64], got "
       "[32,8]"},
      {"GemvLayout", Configure("gemm", "gemv"),
       "version: 'gemv' is not implemented", unimplemented},
  };
}

class BadModelTest : public ::testing::TestWithParam<Bad> {};

TEST_P(BadModelTest, IsRefused) {
  Twins twins(kPhi3Awq);
  GetParam().change(twins);
  const auto description = twins.DescribePacked();
  if (*GetParam().error == '\0') {
    ASSERT_TRUE(description.ok()) << description.status();
    EXPECT_TRUE(absl::StrContains(description->weights_dtype, "AWQ"));
    return;
  }
  EXPECT_EQ(description.status().code(), GetParam().code);
  EXPECT_THAT(std::string(description.status().message()),
              ::testing::HasSubstr(GetParam().error));
  ExpectGoodMessage(description.status());
}

INSTANTIATE_TEST_SUITE_P(All, BadModelTest, ::testing::ValuesIn(BadModels()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace qk::testing
