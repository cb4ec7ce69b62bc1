// Changes one field in the config.json of every family but Llama and checks
// what the reader says.
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/architectures/architecture.h"
#include "tests/engine/formats/testing.h"

namespace qk::testing {
namespace {

constexpr char kSizes[] = R"(
  "num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 53,
  "vocab_size": 97, "max_position_embeddings": 256, "num_attention_heads": 4,
  "num_key_value_heads": 2)";
// GPT-NeoX has one K and V for each head.
constexpr char kNeoxSizes[] = R"(
  "num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 53,
  "vocab_size": 97, "max_position_embeddings": 256, "num_attention_heads": 4)";
constexpr char kGpt2Sizes[] = R"(
  "n_layer": 4, "n_embd": 32, "n_head": 4, "n_positions": 256,
  "vocab_size": 97)";
constexpr char kGptNeoSizes[] = R"(
  "num_layers": 4, "hidden_size": 32, "num_heads": 4, "vocab_size": 97,
  "attention_types": [[["global", "local"], 2]])";
constexpr char kOptSizes[] = R"(
  "num_hidden_layers": 4, "hidden_size": 32, "ffn_dim": 53, "vocab_size": 97,
  "num_attention_heads": 4)";
constexpr char kVlSizes[] = R"(
  "num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 53,
  "vocab_size": 97, "max_position_embeddings": 256, "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]})";
constexpr char kGemmaHead[] = R"(
  "num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 53,
  "vocab_size": 97, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 8)";

constexpr char kGemma3Parts[] = R"(
  "text_config": {
    "num_hidden_layers": 4, "hidden_size": 32, "intermediate_size": 53,
    "head_dim": 8},
  "vision_config": {"hidden_size": 16})";

std::string Sizes(const std::string& type) {
  const std::map<std::string, std::string> kOthers = {
      {"gpt2", kGpt2Sizes},        {"gpt_neo", kGptNeoSizes},
      {"opt", kOptSizes},          {"qwen2_vl", kVlSizes},
      {"gpt_neox", kNeoxSizes},    {"gemma2", kGemmaHead},
      {"gemma3_text", kGemmaHead}, {"gemma3", kGemma3Parts}};
  const auto found = kOthers.find(type);
  return found == kOthers.end() ? kSizes : found->second;
}

// Reads the family's small config with the members `more`, which replace the
// small config's own members of the same name.
absl::StatusOr<Architecture> Read(const std::string& type,
                                  const std::string& field = "",
                                  const std::string& value = "") {
  std::string text =
      absl::StrCat("{\"model_type\": \"", type, "\", ", Sizes(type), "}");
  const size_t at = text.find("\"" + field + "\":");
  if (!field.empty() && at != std::string::npos) {
    const size_t colon = text.find(':', at);
    int depth = 0;
    size_t end = colon + 1;
    for (; depth > 0 || (text[end] != ',' && text[end] != '}'); ++end) {
      depth += text[end] == '[' || text[end] == '{';
      depth -= text[end] == ']' || text[end] == '}';
    }
    text.replace(colon + 1, end - colon - 1, value);
  } else if (!field.empty()) {
    text.insert(1, absl::StrCat("\"", field, "\": ", value, ", "));
  }
  const auto config = JsonDocument::Parse("config", text, {});
  EXPECT_TRUE(config.ok()) << config.status() << " " << text;
  if (!config.ok()) return config.status();
  return ArchitectureFromConfig(config->root());
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

struct Bad {
  const char* type;
  const char* field;
  const char* value;
  const char* expected;
  absl::StatusCode code = kInvalid;
};

const Bad kBad[] = {
    {"mistral", "attention_bias", "true", "attention_bias: true is not",
     kUnimplemented},
    {"mistral", "layer_types", "[]", "layer_types: a field", kUnimplemented},
    {"mistral", "sliding_window", "0", "sliding_window: must be in [1, "},

    {"qwen2", "attention_bias", "false", "attention_bias: false is not",
     kUnimplemented},
    {"qwen2", "use_mrope", "true", "use_mrope: a field", kUnimplemented},
    {"qwen2", "use_sliding_window", "1", "use_sliding_window: must be true"},
    {"qwen2", "max_window_layers", "-1", "max_window_layers: must be in"},
    {"qwen2", "layer_types", "[\"full_attention\"]",
     "layer_types: must have one entry per layer, 4, got 1"},
    {"qwen2", "layer_types", "\"full_attention\"", "layer_types: must be an"},
    {"qwen2", "layer_types", "[1, 2, 3, 4]", "layer_types[0]: must be a str"},
    {"qwen2", "layer_types",
     "[\"full_attention\", \"full_attention\", \"chunked_attention\", "
     "\"full_attention\"]",
     "layer_types[2]: \"chunked_attention\" is not implemented",
     kUnimplemented},
    {"qwen2", "layer_types",
     "[\"full_attention\", \"sliding_attention\", \"full_attention\", "
     "\"full_attention\"]",
     "layer_types[1]: 'sliding_attention', but there is no sliding_window"},
    {"qwen2", "dual_chunk_attention_config", "{}",
     "dual_chunk_attention_config", kUnimplemented},
    {"qwen3", "head_dim", "7", "head_dim: must be even, got 7"},
    {"qwen3", "num_experts", "128", "num_experts: a field", kUnimplemented},

    {"gemma2", "attn_logit_softcapping", "0",
     "attn_logit_softcapping: must be > 0, got 0"},
    {"gemma2", "final_logit_softcapping", "-30",
     "final_logit_softcapping: must be > 0"},
    {"gemma2", "query_pre_attn_scalar", "0",
     "query_pre_attn_scalar: must be > 0"},
    {"gemma2", "hidden_act", "\"gelu\"",
     "hidden_act: differs from hidden_activation"},
    {"gemma2", "hidden_activation", "\"tanh\"", "hidden_activation: \"tanh\"",
     kUnimplemented},
    {"gemma2", "sliding_window", "0", "sliding_window: must be in [1, "},
    {"gemma2", "sliding_window", "null",
     "sliding_window: must be a number, got null"},
    {"gemma2", "sliding_window_size", "5",
     "sliding_window_size: 5, but sliding_window is 4096"},
    {"gemma2", "use_bidirectional_attention", "true",
     "use_bidirectional_attention: a field", kUnimplemented},
    {"gemma3_text", "attn_logit_softcapping", "50.0",
     "attn_logit_softcapping: not used", kUnimplemented},
    {"gemma3_text", "sliding_window_pattern", "0",
     "sliding_window_pattern: must be in"},
    {"gemma3_text", "rope_local_base_freq", "0",
     "rope_local_base_freq: must be > 0"},
    {"gemma3_text", "rope_parameters", "{\"rope_theta\": 10000.0}",
     "rope_parameters.full_attention: missing"},
    {"gemma3_text", "rope_parameters",
     "{\"full_attention\": {\"rope_theta\": 5}, \"sliding_attention\": 3}",
     "rope_parameters.sliding_attention: must be an object"},
    {"gemma3", "text_config", "null", "config: text_config: missing"},
    {"gemma3", "text_config", "[]", "text_config: must be an object"},
    {"gemma3", "text_config", "{}", "text_config.num_hidden_layers: missing"},
    {"gemma3", "text_config", "{\"model_type\": \"llama\"}",
     "text_config.model_type: \"llama\" is not implemented here",
     kUnimplemented},
    {"gemma3", "text_config", "{\"final_logit_softcapping\": 30.0}",
     "text_config.final_logit_softcapping: not used", kUnimplemented},
    {"gemma3", "text_config", "{\"mm_tokens_per_image\": 256}",
     "text_config.mm_tokens_per_image: a field", kUnimplemented},
    {"gemma3", "head_dim", "7", "text_config: head_dim: must be even, got 7"},
    {"gemma3", "vision_config", "[]", "vision_config: must be an object"},
    {"gemma3", "tie_word_embeddings", "1", "tie_word_embeddings: must be true"},
    {"gemma3", "image_size", "5", "config: image_size: a field",
     kUnimplemented},

    {"phi3", "attention_bias", "true", "attention_bias: true is not",
     kUnimplemented},
    {"phi3", "lm_head_bias", "true", "lm_head_bias: true", kUnimplemented},
    {"phi3", "interpolate_factor", "2", "interpolate_factor: 2 is not",
     kUnimplemented},
    {"phi3", "sliding_window", "-1", "sliding_window: must be in [1, "},
    {"phi3", "original_max_position_embeddings", "[1]",
     "original_max_position_embeddings", kInvalid},
    {"phi3", "auto_map", "{\"AutoConfig\": \"evil.Model\"}",
     "auto_map: code of the model's own is never run", kUnimplemented},
    {"phi3", "auto_map",
     "{\"AutoConfig\": \"a/b--configuration_phi3.Phi3Config\"}", "auto_map",
     kUnimplemented},
    {"phi3", "auto_map", "{\"AutoConfig\": 3}", "auto_map"},
    {"phi3", "auto_map", "3", "auto_map", kUnimplemented},
    {"gpt2", "auto_map", "{\"AutoConfig\": \"configuration_gpt2.GPT2Config\"}",
     "auto_map", kUnimplemented},

    {"gpt2", "n_layer", "0", "n_layer: must be in [1, 1024], got 0"},
    {"gpt2", "n_embd", "33", "n_embd: 33 is not a multiple of n_head 4"},
    {"gpt2", "n_inner", "0", "n_inner: must be in"},
    {"gpt2", "n_positions", "0", "n_positions: must be in"},
    {"gpt2", "activation_function", "\"mish\"", "activation_function: \"mish\"",
     kUnimplemented},
    {"gpt2", "scale_attn_weights", "2", "scale_attn_weights: must be true"},
    {"gpt2", "add_cross_attention", "true", "add_cross_attention: a field",
     kUnimplemented},
    {"gpt2", "layer_norm_epsilon", "-1", "layer_norm_epsilon: must be in"},

    {"gpt_neo", "attention_types", "[[[\"global\", \"local\"], 3]]",
     "attention_types: must be of 4 layers, got 6"},
    {"gpt_neo", "attention_types", "[[[\"global\", \"near\"], 2]]",
     "must be global or local, got \"near\""},
    {"gpt_neo", "attention_types", "[[[\"global\"], 4000000000]]",
     "attention_types[0][1]: must be in [0, 1024]"},
    {"gpt_neo", "attention_types", "[[\"global\"]]",
     "attention_types[0]: must be [kinds, how often]"},
    {"gpt_neo", "attention_layers",
     "[\"local\", \"global\", \"local\", \"global\"]",
     "attention_layers: says something else than attention_types"},
    {"gpt_neo", "window_size", "0", "window_size: must be in"},

    {"gpt_neox", "rotary_pct", "0", "rotary_pct: must be > 0, got 0"},
    {"gpt_neox", "rotary_pct", "1.25", "rotary_pct: must be in (0, 1]"},
    {"gpt_neox", "rotary_emb_base", "-1", "rotary_emb_base: must be > 0"},
    {"gpt_neox", "rope_theta", "100",
     "rope_theta: 100, but rotary_emb_base is 10000"},
    {"gpt_neox", "partial_rotary_factor", "0.5",
     "partial_rotary_factor: 0.5, but rotary_pct is 0.25"},
    {"gpt_neox", "use_parallel_residual", "3", "use_parallel_residual"},
    {"gpt_neox", "num_key_value_heads", "2", "num_key_value_heads: a field",
     kUnimplemented},

    {"opt", "word_embed_proj_dim", "0", "word_embed_proj_dim: must be in"},
    {"opt", "layer_norm_elementwise_affine", "false",
     "layer_norm_elementwise_affine: false", kUnimplemented},
    {"opt", "do_layer_norm_before", "\"yes\"", "do_layer_norm_before"},
    {"opt", "num_attention_heads", "5",
     "not a multiple of num_attention_heads"},

    {"jamba", "attn_layer_offset", "8",
     "attn_layer_offset: must be below attn_layer_period 8, got 8"},
    {"jamba", "expert_layer_period", "0", "expert_layer_period: must be in"},
    {"jamba", "num_experts", "0", "num_experts: must be in [1, 256], got 0"},
    {"jamba", "num_experts_per_tok", "17",
     "num_experts_per_tok: must be in [1, 16], got 17"},
    {"jamba", "num_local_experts", "300", "num_local_experts: must be in"},
    {"jamba", "mamba_dt_rank", "\"most\"", "mamba_dt_rank"},
    {"jamba", "mamba_dt_rank", "0", "mamba_dt_rank: must be in"},
    {"jamba", "mamba_expand", "1000000000", "mamba_expand: must be in"},
    {"jamba", "mamba_d_conv", "0", "mamba_d_conv: must be in"},
    {"jamba", "mamba_inner_layernorms", "false",
     "mamba_inner_layernorms: false", kUnimplemented},
    {"jamba", "hidden_act", "\"gelu\"", "hidden_act: only silu",
     kUnimplemented},
    {"jamba", "sliding_window", "64", "sliding_window: not a field",
     kUnimplemented},

    {"qwen2_vl", "text_config", "{\"hidden_size\": 32}",
     "config: num_hidden_layers: 4, but text_config says nothing"},
    {"qwen2_vl", "rope_scaling", "{\"mrope_section\": [1, 1, 1, 1]}",
     "mrope_section: must be 3 numbers of sum 4, got 4 of sum 4"},

    {"llama", "quantization_config", "{\"quant_method\": \"bitsandbytes\"}",
     "quantization_config.quant_method: \"bitsandbytes\" is not",
     kUnimplemented},
    {"llama", "quantization_config", "{\"quant_method\": \"awq\", \"bits\": 8}",
     "quantization_config.bits: 8 is not implemented", kUnimplemented},
    {"llama", "quantization_config",
     "{\"quant_method\": \"awq\", \"bits\": 4, \"version\": \"gemv\"}",
     "quantization_config.version: 'gemv' is not", kUnimplemented},
    {"llama", "quantization_config",
     "{\"quant_method\": \"awq\", \"bits\": 4, \"format\": \"\\n\"}",
     "quantization_config.format: '\\n' is not", kUnimplemented},
    {"llama", "quantization_config",
     "{\"quant_method\": \"gptq\", \"bits\": 4, \"format\": \"\\n\"}",
     "quantization_config.format: '\\n' is not", kUnimplemented},
    {"llama", "quantization_config",
     "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 100}",
     "quantization_config: group_size: must be -1 or a multiple of 32"},
    {"llama", "quantization_config",
     "{\"quant_method\": \"awq\", \"bits\": 4, \"zero_point\": false}",
     "quantization_config.zero_point: false", kUnimplemented},
    {"llama", "quantization_config",
     "{\"quant_method\": \"gptq\", \"bits\": 3}",
     "quantization_config.bits: 3 is not", kUnimplemented},
    {"llama", "quantization_config",
     "{\"quant_method\": \"gptq\", \"bits\": 4, "
     "\"checkpoint_format\": \"marlin\"}",
     "quantization_config.checkpoint_format: 'marlin'", kUnimplemented},
    {"llama", "quantization_config",
     "{\"quant_method\": \"gptq\", \"bits\": 4, \"dynamic\": {\"a\": 1}}",
     "quantization_config.dynamic: a field", kUnimplemented},
    {"llama", "quantization_config",
     "{\"quant_method\": \"gptq\", \"bits\": 4, \"lm_head\": true}",
     "quantization_config.lm_head: true", kUnimplemented},
    {"llama", "quantization_config", "4",
     "quantization_config: must be an object"},
};

TEST(ConfigFamiliesTest, SmallConfigsAreRead) {
  for (const char* type :
       {"mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt2",
        "gpt_neo", "gpt_neox", "opt", "jamba", "qwen2_vl", "gemma3"}) {
    const auto a = Read(type);
    ASSERT_TRUE(a.ok()) << a.status();
    EXPECT_EQ(a->config.architecture, type);
    EXPECT_EQ(a->config.num_layers(), 4) << type;
    EXPECT_EQ(a->config.hidden_size, 32) << type;
    EXPECT_EQ(a->config.embedding_size, 32) << type;
  }
}

TEST(ConfigFamiliesTest, BadFieldsAreNamed) {
  for (const Bad& bad : kBad) {
    const absl::Status status = Read(bad.type, bad.field, bad.value).status();
    EXPECT_EQ(status.code(), bad.code)
        << bad.type << " " << bad.field << " " << bad.value << ": " << status;
    EXPECT_THAT(std::string(status.message()),
                ::testing::HasSubstr(bad.expected))
        << bad.type << " " << bad.field << " " << bad.value;
    if (!status.ok()) ExpectGoodMessage(status);
  }
}

ModelConfig Good(const std::string& type, const std::string& field,
                 const std::string& value) {
  const auto a = Read(type, field, value);
  EXPECT_TRUE(a.ok()) << type << " " << field << ": " << a.status();
  return a.ok() ? a->config : ModelConfig{};
}

TEST(ConfigFamiliesTest, Activations) {
  const auto read = [](const char* name) {
    return Good("gpt2", "activation_function", absl::StrCat("\"", name, "\""))
        .layers[0]
        .mlp.activation;
  };
  EXPECT_EQ(read("gelu"), Activation::kGelu);
  EXPECT_EQ(read("gelu_new"), Activation::kGeluTanh);
  EXPECT_EQ(read("gelu_pytorch_tanh"), Activation::kGeluTanh);
  EXPECT_EQ(read("relu"), Activation::kRelu);
  EXPECT_EQ(read("swish"), Activation::kSilu);
}

TEST(ConfigFamiliesTest, ScaleOfGpt2) {
  const char* kByLayer = "scale_attn_by_inverse_layer_idx";
  EXPECT_EQ(
      Good("gpt2", "scale_attn_weights", "false").layers[0].attention.scale,
      1.0f);
  EXPECT_FLOAT_EQ(Good("gpt2", kByLayer, "true").layers[3].attention.scale,
                  0.088388348f);
  EXPECT_EQ(Good("gpt2", "n_inner", "null").layers[0].mlp.intermediate_size,
            128);
  EXPECT_EQ(Good("gpt2", "n_inner", "77").layers[0].mlp.intermediate_size, 77);
}

TEST(ConfigFamiliesTest, CapsThatAreOff) {
  EXPECT_EQ(Good("gemma2", "use_cache", "true").logit_softcap, 30.0f);
  EXPECT_EQ(Good("gemma2", "final_logit_softcapping", "null").logit_softcap,
            0.0f);
  EXPECT_EQ(Good("gemma2", "attn_logit_softcapping", "null")
                .layers[0]
                .attention.softcap,
            0.0f);
}

TEST(ConfigFamiliesTest, FusedRowsOfTheMostAndLargestHeads) {
  const auto config = JsonDocument::Parse("config", R"({"model_type": "phi3",
      "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 53,
      "vocab_size": 97, "num_attention_heads": 1048576,
      "num_key_value_heads": 1048576, "head_dim": 1024})",
                                          {});
  ASSERT_TRUE(config.ok()) << config.status();
  const auto a = ArchitectureFromConfig(config->root());
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->layers[0].v_proj.fused_rows, int64_t{3} << 30);
  EXPECT_EQ(a->layers[0].v_proj.first_row, int64_t{2} << 30);
}

TEST(ConfigFamiliesTest, Packing) {
  const auto awq = Read(
      "qwen2", "quantization_config",
      R"({"bits": 4, "group_size": 64, "modules_to_not_convert": ["visual"],
          "quant_method": "awq", "version": "GEMM", "zero_point": true})");
  ASSERT_TRUE(awq.ok()) << awq.status();
  EXPECT_EQ(awq->packing.method, Packing::Method::kAwq);
  EXPECT_EQ(awq->packing.bits, 4);
  EXPECT_EQ(awq->packing.group_size, 64);
  EXPECT_EQ(awq->packing.modules_to_not_convert,
            std::vector<std::string>{"visual"});
  const auto gptq = Read(
      "llama", "quantization_config",
      R"({"bits": 4, "group_size": -1, "damp_percent": 0.01, "desc_act": true,
          "static_groups": false, "sym": false, "true_sequential": true,
          "checkpoint_format": "gptq_v2", "quant_method": "gptq"})");
  ASSERT_TRUE(gptq.ok()) << gptq.status();
  EXPECT_EQ(gptq->packing.method, Packing::Method::kGptq);
  EXPECT_EQ(gptq->packing.group_size, -1);
  EXPECT_TRUE(gptq->packing.desc_act);
  EXPECT_FALSE(gptq->packing.sym);
  EXPECT_TRUE(gptq->packing.v2);
  EXPECT_EQ(Read("llama")->packing, Packing{});
}

}  // namespace
}  // namespace qk::testing
