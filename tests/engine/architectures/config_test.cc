// Tests which Llama config.json files and weights are refused, and why.
// config_families_test.cc tests the other families.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/architectures/architecture.h"
#include "engine/model/model.h"
#include "tests/engine/formats/testing.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {
namespace {

constexpr char kGood[] = R"({"model_type": "llama",
  "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 53,
  "vocab_size": 97, "max_position_embeddings": 256, "num_attention_heads": 4,
  "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
  "hidden_act": "silu", "tie_word_embeddings": false,
  "use_cache": true})";

absl::StatusOr<Architecture> Read(const std::string& text) {
  auto config = JsonDocument::Parse("config", text, {});
  if (!config.ok()) return config.status();
  return ArchitectureFromConfig(config->root());
}

// Returns the good config with `field` set to `value`; "" removes the field.
std::string With(const std::string& field, const std::string& value) {
  std::string text = kGood;
  const size_t at = text.find("\"" + field + "\":");
  if (at != std::string::npos) {
    const size_t end = text.find_first_of(",}", at);
    text.erase(at, end - at + (text[end] == ',' ? 1 : 0));
  }
  if (!value.empty()) {
    text.insert(1, absl::StrCat("\"", field, "\": ", value, ", "));
  }
  return text;
}

struct BadConfig {
  const char* field;
  const char* value;  // "": missing
  const char* expected;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

const BadConfig kBad[] = {
    {"num_hidden_layers", "", "num_hidden_layers"},
    {"num_hidden_layers", "null", "num_hidden_layers"},
    {"num_hidden_layers", "2.0", "num_hidden_layers: must be an integer"},
    {"num_hidden_layers", "2.5", "num_hidden_layers: must be an integer"},
    {"num_hidden_layers", "\"2\"", "num_hidden_layers: must be an integer"},
    {"num_hidden_layers", "[2]", "num_hidden_layers: must be an integer"},
    {"num_hidden_layers", "true", "num_hidden_layers: must be an integer"},
    {"num_hidden_layers", "0",
     "num_hidden_layers: must be in [1, 1024], got 0"},
    {"num_hidden_layers", "-1", "must be in [1, 1024], got -1"},
    {"num_hidden_layers", "1000000000", "[1, 1024], got 1000000000"},
    {"num_hidden_layers", "18446744073709551615", "num_hidden_layers"},
    {"num_hidden_layers", "1e400", "config"},
    {"hidden_size", "", "hidden_size"},
    {"hidden_size", "0", "hidden_size: must be in"},
    {"hidden_size", "-32", "hidden_size: must be in"},
    {"hidden_size", "32.0", "hidden_size: must be an integer"},
    {"hidden_size", "33", "hidden_size: 33 is not a multiple"},
    {"hidden_size", "2147483648", "hidden_size: must be in"},
    {"intermediate_size", "", "intermediate_size"},
    {"intermediate_size", "0", "intermediate_size: must be in"},
    {"intermediate_size", "53.5", "intermediate_size: must be an integer"},
    {"vocab_size", "", "vocab_size"},
    {"vocab_size", "0", "vocab_size: must be in"},
    {"vocab_size", "-97", "vocab_size: must be in"},
    {"vocab_size", "4294967296", "vocab_size: must be in"},
    {"max_position_embeddings", "0", "max_position_embeddings: must be in"},
    {"max_position_embeddings", "1000000000000",
     "max_position_embeddings: must be in"},
    {"num_attention_heads", "", "num_attention_heads"},
    {"num_attention_heads", "0", "num_attention_heads: must be in"},
    {"num_attention_heads", "-4", "num_attention_heads: must be in"},
    {"num_attention_heads", "5",
     "num_key_value_heads: 2 does not divide num_attention_heads 5"},
    {"num_key_value_heads", "0", "num_key_value_heads: must be in"},
    {"num_key_value_heads", "3",
     "num_key_value_heads: 3 does not divide num_attention_heads 4"},
    {"num_key_value_heads", "8", "num_key_value_heads: 8 does not divide"},
    {"num_key_value_heads", "2.0", "num_key_value_heads: must be an integer"},
    {"head_dim", "0", "head_dim: must be in"},
    {"head_dim", "7", "head_dim: must be even, got 7"},
    {"head_dim", "100000", "head_dim: must be in"},
    {"rms_norm_eps", "-1e-5", "rms_norm_eps: must be in [0, 1], got -1e-05"},
    {"rms_norm_eps", "1.5", "rms_norm_eps: must be in [0, 1], got 1.5"},
    {"rms_norm_eps", "\"1e-5\"", "rms_norm_eps: must be a finite number"},
    {"rope_theta", "0", "rope_theta: must be > 0, got 0"},
    {"rope_theta", "-10000", "rope_theta: must be > 0, got -10000"},
    {"rope_theta", "NaN", "config"},
    {"rope_theta", "Infinity", "config"},
    {"rope_theta", "\"10000\"", "rope_theta: must be a finite number"},
    {"rope_scaling", "{\"rope_type\": \"linear\"}", "rope_scaling.factor"},
    {"rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 0}",
     "factor: must be > 0"},
    {"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8.0}",
     "low_freq_factor"},
    {"rope_scaling", "{\"rope_type\": 3}", "rope_type: must be a string"},
    {"rope_scaling", "4", "rope_scaling: must be an object, got 4"},
    {"rope_parameters", "[1]", "rope_parameters: must be an object"},
    {"rope_parameters", "{\"rope_theta\": -1}", "rope_theta: must be > 0"},
    {"attention_bias", "1", "attention_bias: must be true or false"},
    {"mlp_bias", "\"no\"", "mlp_bias: must be true or false"},
    {"tie_word_embeddings", "0", "tie_word_embeddings: must be true or false"},
    {"hidden_act", "\"mish\"", "hidden_act: \"mish\" is not", kUnimplemented},
    {"rope_interleaved", "true", "rope_interleaved: true is not implemented",
     kUnimplemented},
    {"hidden_act", "7", "hidden_act: must be a string"},
    {"sliding_window", "512", "sliding_window", kUnimplemented},
    {"auto_map", "{\"AutoModel\": \"evil.Model\"}", "auto_map", kUnimplemented},
    {"quantization_config", "{\"bits\": 4}",
     "quantization_config.quant_method: missing"},
    {"partial_rotary_factor", "0.5", "partial_rotary_factor", kUnimplemented},
    {"num_experts", "8", "num_experts", kUnimplemented},
    {"caf\xC3\xA9", "8", "config: caf\\303\\251: a field", kUnimplemented},
    {"model_type", "", "model_type"},
    {"model_type", "\"mamba\"", "model_type: \"mamba\" is not implemented",
     kUnimplemented},
    {"model_type", "[]", "model_type: must be a string"},
};

TEST(ConfigTest, GoodConfigIsRead) {
  const auto a = Read(kGood);
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->config.architecture, "llama");
  EXPECT_EQ(a->config.num_layers(), 2);
  EXPECT_EQ(a->config.hidden_size, 32);
  EXPECT_EQ(a->config.vocab_size, 97);
  EXPECT_EQ(a->config.context_length, 256);
  EXPECT_FALSE(a->config.tied_lm_head);
  const LayerConfig& layer = a->config.layers[1];
  EXPECT_EQ(layer.attention.num_heads, 4);
  EXPECT_EQ(layer.attention.num_kv_heads, 2);
  EXPECT_EQ(layer.attention.head_dim, 8);
  EXPECT_EQ(layer.attention.rope.rotary_dims, 8);
  EXPECT_EQ(layer.mlp.intermediate_size, 53);
}

TEST(ConfigTest, FieldsOfDefaultMayBeMissing) {
  for (const char* field :
       {"num_key_value_heads", "rms_norm_eps", "rope_theta", "hidden_act",
        "tie_word_embeddings", "max_position_embeddings"}) {
    EXPECT_TRUE(Read(With(field, "")).ok()) << Read(With(field, "")).status();
    EXPECT_TRUE(Read(With(field, "null")).ok()) << field;
  }
}

TEST(ConfigTest, BadConfigsAreRefusedWithTheField) {
  for (const BadConfig& bad : kBad) {
    const absl::Status status = Read(With(bad.field, bad.value)).status();
    EXPECT_EQ(status.code(), bad.code)
        << bad.field << " " << bad.value << ": " << status;
    EXPECT_THAT(std::string(status.message()),
                ::testing::HasSubstr(bad.expected))
        << bad.field << " " << bad.value;
    ExpectGoodMessage(status);
  }
}

TEST(ConfigTest, WhatIsNoObjectIsRefused) {
  for (const char* text : {"", "{", "[]", "3", "null", "\"llama\"", "{}",
                           "{\"model_type\": \"llama\"}", "\xFF"}) {
    const absl::Status status = Read(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
        << text << ": " << status;
    if (!status.ok()) ExpectGoodMessage(status);
  }
}

TEST(ConfigTest, MistralReadsItsWindow) {
  std::string text = absl::StrReplaceAll(With("sliding_window", "512"),
                                         {{"llama", "mistral"}});
  const auto a = Read(text);
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->config.layers[0].attention.sliding_window, 512);
  for (const char* bad : {"0", "-1", "1.5", "\"512\""}) {
    text = absl::StrReplaceAll(With("sliding_window", bad),
                               {{"llama", "mistral"}});
    EXPECT_EQ(Read(text).status().code(), absl::StatusCode::kInvalidArgument)
        << bad;
  }
}

TEST(ConfigTest, WindowsOfMistralThatAreNotWritten) {
  const auto read = [](const std::string& value) {
    return Read(absl::StrReplaceAll(With("sliding_window", value),
                                    {{"llama", "mistral"}}));
  };
  EXPECT_EQ(read("")->config.layers[0].attention.sliding_window, 4096);
  EXPECT_FALSE(
      read("null")->config.layers[0].attention.sliding_window.has_value());
}

// A folder with a golden's weights and a config.json that tests can change.
class ModelFolderTest : public ::testing::Test {
 protected:
  ModelFolderTest() {
    const std::string from =
        std::string(QK_SOURCE_DIR) + "/tests/goldens/tiny_llama_gqa/";
    config_ = ReadFile(from + "config.json");
    weights_ = ReadFile(from + "model.safetensors");
    folder_.Write("config.json", config_);
    folder_.Write("model.safetensors", weights_);
  }

  void Replace(const std::string& from, const std::string& to) {
    ASSERT_NE(config_.find(from), std::string::npos) << from;
    folder_.Write("config.json", absl::StrReplaceAll(config_, {{from, to}}));
  }
  // Replaces text in the header by text of the same length, so that the
  // header's size stays right.
  void ReplaceInWeights(const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    ASSERT_NE(weights_.find(from), std::string::npos) << from;
    folder_.Write("model.safetensors",
                  absl::StrReplaceAll(weights_, {{from, to}}));
  }
  absl::Status Describe() {
    return DescribeModel(folder_.path(), ComputeType::kF32).status();
  }

  TempFolder folder_;
  std::string config_, weights_;
};

TEST_F(ModelFolderTest, DescribeModel) {
  const auto d = DescribeModel(folder_.path(), ComputeType::kF32);
  ASSERT_TRUE(d.ok()) << d.status();
  EXPECT_EQ(d->config.num_layers(), 2);
  EXPECT_EQ(d->weights_dtype, "F32");
  EXPECT_EQ(d->file_bytes, static_cast<int64_t>(weights_.size()));
  // The sum counts embedding and head, final norm, and per layer: norms, q and
  // o, k and v, MLP.
  EXPECT_EQ(d->parameters,
            2 * 97 * 32 + 32 +
                2 * (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 53 * 32));
  EXPECT_EQ(d->bytes_estimate, d->parameters * 4);
  const auto file =
      DescribeModel(folder_.path() + "/model.safetensors", ComputeType::kBF16);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->bytes_estimate, d->parameters * 2);
}

TEST_F(ModelFolderTest, EosIdsOfBothFiles) {
  const auto ids = [&] {
    return DescribeModel(folder_.path(), ComputeType::kF32)->config.eos_ids;
  };
  EXPECT_EQ(ids(), (std::vector<int32_t>{2}));
  Replace("\"eos_token_id\": 2", "\"eos_token_id\": [3, 7, 5000]");
  folder_.Write("generation_config.json", "{\"eos_token_id\": 4}");
  EXPECT_EQ(ids(), (std::vector<int32_t>{3, 7, 4}));
  folder_.Write("generation_config.json", "{\"eos_token_id\": null}");
  EXPECT_EQ(ids(), (std::vector<int32_t>{3, 7}));
  folder_.Write("generation_config.json", "{\"eos_token_id\": \"end\"}");
  ExpectError(Describe(), "generation_config: eos_token_id: ");
  folder_.Write("generation_config.json", "[");
  ExpectError(Describe(), "generation_config: ");
}

TEST_F(ModelFolderTest, MissingTensorIsNamed) {
  ReplaceInWeights("model.layers.1.mlp.up_proj.weight",
                   "model.layers.1.mlp.XX_proj.weight");
  ExpectError(Describe(),
              "missing 'model.layers.1.mlp.up_proj.weight'; expected [53,32]");
}

TEST_F(ModelFolderTest, WrongShapesAreNamed) {
  Replace("\"intermediate_size\": 53", "\"intermediate_size\": 54");
  ExpectError(Describe(), "expected [54,32], got [53,32]");
  Replace("\"vocab_size\": 97", "\"vocab_size\": 98");
  ExpectError(Describe(), "expected [98,32], got [97,32]");
  Replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4");
  ExpectError(Describe(), "k_proj.weight': expected [32,32], got [16,32]");
  Replace("\"head_dim\": 8", "\"head_dim\": 16");
  ExpectError(Describe(), "q_proj.weight': expected [64,32], got [32,32]");
  Replace("\"attention_bias\": false", "\"attention_bias\": true");
  ExpectError(Describe(), "missing 'model.layers.0.self_attn.q_proj.bias'");
}

TEST_F(ModelFolderTest, MoreLayersThanTheFile) {
  Replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
  ExpectError(Describe(), "missing 'model.layers.2.");
  Replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1024");
  ExpectError(Describe(), "missing 'model.layers.2.");
}

TEST_F(ModelFolderTest, FewerLayersThanTheFile) {
  Replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
  ExpectError(Describe(), "extra 'model.layers.1.");
}

TEST_F(ModelFolderTest, MissingFiles) {
  std::filesystem::remove(folder_.path() + "/config.json");
  EXPECT_EQ(Describe().code(), absl::StatusCode::kNotFound);
  folder_.Write("config.json", config_);
  std::filesystem::remove(folder_.path() + "/model.safetensors");
  EXPECT_EQ(Describe().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DescribeModel(folder_.path() + "/none.gguf", ComputeType::kF32)
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ModelFolderTest, Sha256IsChecked) {
  const auto backend = MakeTestBackend(1);
  ModelOptions options;
  options.kv_cache_bytes = 1 << 20;
  options.max_rows_per_pass = 16;
  const auto model = Model::Load(folder_.path(), options, backend.get());
  ASSERT_TRUE(model.ok()) << model.status();
  options.expected_sha256 = (*model)->weights_sha256();
  EXPECT_EQ(options.expected_sha256.size(), 64u);
  EXPECT_TRUE(Model::Load(folder_.path(), options, backend.get()).ok());
  char& digit = options.expected_sha256[0];
  digit = digit == '0' ? '1' : '0';
  const absl::Status status =
      Model::Load(folder_.path(), options, backend.get()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr(options.expected_sha256));
  ExpectGoodMessage(status);
}

}  // namespace
}  // namespace qk::testing
