// Tests the GGUF metadata of every family that llama.cpp defines, and two real
// files if they are available.
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/architectures/architectures_testing.h"
#include "tests/engine/formats/gguf_testing.h"

namespace qk::testing {
namespace {

// A file of one architecture with the metadata that every file has; its tensors
// only state that they exist.
class Maker {
 public:
  explicit Maker(std::string type) : type_(std::move(type)) {
    file_.keys.push_back(
        GgufKey("general.architecture", GgufType::kString, GgufString(type_)));
    Int("block_count", 6);
    Int("context_length", 256);
    Int("embedding_length", 32);
    Int("feed_forward_length", 64);
    Int("attention.head_count", 4);
    Int("attention.head_count_kv", 2);
    const bool layer_norm = type_ == "gpt2" || type_ == "gptneox";
    Float(layer_norm ? "attention.layer_norm_epsilon"
                     : "attention.layer_norm_rms_epsilon",
          1e-5f);
    Tensor("token_embd.weight", {32, 3});
  }

  Maker& Int(const std::string& key, uint32_t value) {
    return Key(key, GgufType::kUint32, Raw(value));
  }
  Maker& Float(const std::string& key, float value) {
    return Key(key, GgufType::kFloat32, Raw(value));
  }
  Maker& Key(const std::string& key, GgufType type, const std::string& value) {
    file_.keys.push_back(GgufKey(absl::StrCat(type_, ".", key), type, value));
    return *this;
  }
  Maker& Tensor(const std::string& name, const std::vector<int64_t>& ne) {
    int64_t bytes = 4;
    for (const int64_t size : ne) bytes *= size;
    file_.tensors.push_back(GgufTensor(name, ne, 0, file_.data.size()));
    file_.data.resize(file_.data.size() + (bytes + 31) / 32 * 32);
    return *this;
  }

  absl::StatusOr<Architecture> Read() const {
    const std::string bytes = file_.Build();
    const auto file = GgufFile::Parse("model.gguf", AsBytes(bytes));
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) return file.status();
    return ArchitectureFromGguf(**file);
  }
  Architecture Good() const {
    auto a = Read();
    EXPECT_TRUE(a.ok()) << type_ << ": " << a.status();
    return a.ok() ? *std::move(a) : Architecture{};
  }
  void Expect(absl::StatusCode code, const std::string& expected) const {
    const absl::Status status = Read().status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(expected));
    if (!status.ok()) ExpectGoodMessage(status);
  }

 private:
  std::string type_;
  GgufBuilder file_;
};

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(GgufFamiliesTest, Llama) {
  Maker maker("llama");
  maker.Tensor("rope_freqs.weight", {4});
  const Architecture a = maker.Good();
  EXPECT_EQ(a.layers[0].q_proj.interleaved_heads, 4);
  EXPECT_EQ(a.layers[0].k_proj.interleaved_heads, 2);
  EXPECT_EQ(a.layers[0].v_proj.interleaved_heads, 0);
  EXPECT_EQ(a.rope_factors.shape, std::vector<int64_t>{4});
  EXPECT_TRUE(a.config.tied_lm_head);
  EXPECT_EQ(a.config.vocab_size, 3);
  EXPECT_EQ(a.config.embedding_size, 32);
}

TEST(GgufFamiliesTest, Qwen) {
  Maker maker("qwen2");
  maker.Tensor("blk.0.attn_q.bias", {32}).Tensor("output.weight", {32, 3});
  const Architecture two = maker.Good();
  EXPECT_EQ(two.layers[5].k_bias.name, "blk.5.attn_k.bias");
  EXPECT_TRUE(two.layers[5].o_bias.name.empty());
  EXPECT_TRUE(two.layers[5].q_norm.name.empty());
  EXPECT_EQ(two.layers[5].q_proj.interleaved_heads, 0);
  EXPECT_FALSE(two.config.tied_lm_head);
  const Architecture three = Maker("qwen3")
                                 .Int("attention.key_length", 16)
                                 .Int("attention.value_length", 16)
                                 .Good();
  EXPECT_EQ(three.layers[0].q_norm.name, "blk.0.attn_q_norm.weight");
  EXPECT_EQ(three.layers[0].q_norm.shape, std::vector<int64_t>{16});
  EXPECT_EQ(three.layers[0].q_proj.shape, (std::vector<int64_t>{64, 32}));
}

TEST(GgufFamiliesTest, Gemma2) {
  const Architecture a = Maker("gemma2")
                             .Int("attention.sliding_window", 16)
                             .Float("attn_logit_softcapping", 20.0f)
                             .Good();
  EXPECT_EQ(a.config.norm_placement, NormPlacement::kSandwich);
  EXPECT_EQ(a.layers[0].post_mlp_norm.weight.name,
            "blk.0.post_ffw_norm.weight");
  EXPECT_EQ(a.layers[0].mlp_norm.weight.plus, 0.0f);
  EXPECT_EQ(a.config.layers[0].attention.sliding_window, 16);
  EXPECT_FALSE(a.config.layers[1].attention.sliding_window.has_value());
  EXPECT_EQ(a.config.layers[1].attention.softcap, 20.0f);
  EXPECT_EQ(a.config.logit_softcap, 30.0f);
  EXPECT_EQ(a.config.layers[0].mlp.activation, Activation::kGeluTanh);
}

TEST(GgufFamiliesTest, Gemma3) {
  const Architecture a = Maker("gemma3")
                             .Int("attention.sliding_window", 16)
                             .Float("rope.freq_base", 1e6f)
                             .Float("rope.scaling.factor", 8.0f)
                             .Good();
  for (int i = 0; i < 6; ++i) {
    const AttentionConfig& c = a.config.layers[i].attention;
    EXPECT_EQ(c.sliding_window.has_value(), i != 5);
    EXPECT_EQ(c.rope.theta, i != 5 ? 1e4 : 1e6);
    EXPECT_EQ(c.rope.scaling, i != 5 ? "none" : "linear");
    EXPECT_TRUE(c.qk_norm);
    EXPECT_EQ(c.softcap, 0.0f);
  }
  EXPECT_EQ(a.config.layers[5].attention.rope.frequencies[0], 0.125);
  EXPECT_FLOAT_EQ(a.config.embedding_scale, std::sqrt(32.0f));
}

TEST(GgufFamiliesTest, Phi3) {
  Maker maker("phi3");
  maker.Int("rope.dimension_count", 6)
      .Int("rope.scaling.original_context_length", 64)
      .Float("rope.scaling.attn_factor", 1.25f)
      .Int("attention.sliding_window", 0)
      .Tensor("blk.0.attn_qkv.weight", {32, 64})
      .Tensor("rope_factors_long.weight", {3})
      .Tensor("rope_factors_short.weight", {3});
  const Architecture a = maker.Good();
  const RopeConfig& rope = a.config.layers[0].attention.rope;
  EXPECT_EQ(rope.rotary_dims, 6);
  EXPECT_EQ(rope.original_context, 64);
  EXPECT_EQ(rope.attention_factor, 1.25);
  EXPECT_EQ(a.rope_factors_long.shape, std::vector<int64_t>{3});
  EXPECT_EQ(a.rope_factors_short.name, "rope_factors_short.weight");
  EXPECT_EQ(a.layers[2].v_proj.name, "blk.2.attn_qkv.weight");
  EXPECT_EQ(a.layers[2].v_proj.first_row, 48);
  EXPECT_EQ(a.layers[2].mlps[0].gate_proj.name, "blk.2.ffn_up.weight");
  EXPECT_EQ(a.layers[2].mlps[0].up_proj.first_row, 64);
  EXPECT_FALSE(a.config.layers[0].attention.sliding_window.has_value());
}

TEST(GgufFamiliesTest, Gpt2AndGptNeox) {
  Maker two("gpt2");
  two.Tensor("blk.0.attn_qkv.weight", {32, 64})
      .Tensor("blk.0.attn_qkv.bias", {64})
      .Tensor("blk.0.attn_output.bias", {32})
      .Tensor("blk.0.ffn_down.bias", {32});
  const Architecture a = two.Good();
  EXPECT_EQ(a.positions.name, "position_embd.weight");
  EXPECT_EQ(a.config.position_rows, 256);
  EXPECT_FALSE(a.layers[0].q_proj.transposed);
  EXPECT_EQ(a.layers[0].k_bias.first_row, 32);
  EXPECT_EQ(a.final_norm.bias.name, "output_norm.bias");
  EXPECT_TRUE(a.config.layers[0].attention.rope.frequencies.empty());

  Maker neox("gptneox");
  neox.Tensor("blk.0.attn_qkv.weight", {32, 64})
      .Tensor("blk.0.attn_qkv.bias", {64})
      .Int("rope.dimension_count", 2)
      .Key("use_parallel_residual", GgufType::kBool, std::string(1, '\1'));
  const Architecture b = neox.Good();
  EXPECT_TRUE(b.config.parallel_residual);
  EXPECT_EQ(b.config.layers[0].attention.rope.rotary_dims, 2);
  EXPECT_EQ(b.layers[0].k_proj.block_rows, 0);
  EXPECT_EQ(b.layers[0].k_proj.first_row, 32);
}

TEST(GgufFamiliesTest, Yarn) {
  Maker maker("qwen2");
  maker.Float("rope.scaling.factor", 4.0f)
      .Int("rope.scaling.original_context_length", 64)
      .Key("rope.scaling.type", GgufType::kString, GgufString("yarn"));
  const RopeConfig rope = maker.Good().config.layers[0].attention.rope;
  EXPECT_EQ(rope.scaling, "yarn");
  EXPECT_NEAR(rope.attention_factor, 0.1 * std::log(4.0) + 1, 1e-12);
  EXPECT_EQ(rope.frequencies[0], 1.0);
}

TEST(GgufFamiliesTest, BadKeysAreNamed) {
  Maker("llama")
      .Int("rope.dimension_count", 4)
      .Expect(kUnimplemented,
              "llama.rope.dimension_count: 4 of a head_dim of 8");
  Maker("llama")
      .Int("expert_count", 8)
      .Expect(kUnimplemented, "llama.expert_count: 8 is not implemented");
  Maker("qwen2")
      .Float("attention.scale", 2)
      .Expect(kUnimplemented,
              "model.gguf: qwen2.attention.scale: a key that is not");
  Maker("qwen2")
      .Float("rope.freq_base", -1)
      .Expect(kInvalid, "qwen2.rope.freq_base: must be > 0");
  Maker("qwen2")
      .Float("rope.freq_base", NAN)
      .Expect(kInvalid, "qwen2.rope.freq_base");
  Maker("qwen2")
      .Int("attention.key_length", 2048)
      .Expect(kInvalid, "qwen2.attention.key_length: must be");
  Maker("qwen2")
      .Int("attention.key_length", 7)
      .Int("attention.value_length", 7)
      .Expect(kInvalid, "qwen2.rope.dimension_count: must be even, got 7");
  Maker("qwen2")
      .Key("rope.scaling.type", GgufType::kString, GgufString("ntk"))
      .Expect(kUnimplemented, "qwen2.rope.scaling.type: 'ntk' is not");
  Maker("qwen2")
      .Key("rope.scaling.type", GgufType::kString, GgufString("n\ntk"))
      .Expect(kUnimplemented, "qwen2.rope.scaling.type: 'n\\ntk' is not");
  Maker("gemma2")
      .Float("final_logit_softcapping", 0)
      .Expect(kInvalid, "gemma2.final_logit_softcapping: must be > 0");
  Maker("gptneox").Expect(kInvalid, "gptneox.use_parallel_residual");
  Maker("mamba").Expect(kUnimplemented, "general.architecture: 'mamba'");
  Maker("\n").Expect(kUnimplemented, "general.architecture: '\\n'");
}

// Checks that a real file has all expected names and shapes, and no others.
[[maybe_unused]] void ExpectWhole(const char* path, int64_t parameters) {
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto a = ArchitectureFromGguf(**file);
  ASSERT_TRUE(a.ok()) << a.status();
  Tensors tensors;
  for (const TensorInfo& tensor : (*file)->tensors()) {
    tensors[tensor.name] = tensor.shape;
  }
  EXPECT_EQ(FileTensors(*a), tensors);
  EXPECT_EQ(Parameters(*a), parameters);
}

TEST(RealGgufTest, SmolLM2) {
#ifdef QK_SMOLLM2_GGUF
  ExpectWhole(QK_SMOLLM2_GGUF, 134515008);
#else
  GTEST_SKIP() << "QK_SMOLLM2_GGUF is not set";
#endif
}

TEST(RealGgufTest, Gemma3) {
#ifdef QK_GEMMA3_GGUF
  ExpectWhole(QK_GEMMA3_GGUF, 268098176);
#else
  GTEST_SKIP() << "QK_GEMMA3_GGUF is not set";
#endif
}

}  // namespace
}  // namespace qk::testing
