// Tests what is read from "vision_config" of config.json, and what is refused.
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/architectures/architecture.h"
#include "tests/engine/forward_driver.h"

namespace qk::testing {
namespace {

absl::StatusOr<Architecture> ReadText(const std::string& text) {
  return ArchitectureFromConfig(
      JsonDocument::Parse("config", text, {})->root());
}

// Reads a small text model with this "vision_config" and "image_token_id".
absl::StatusOr<Architecture> Read(const std::string& vision,
                                  const std::string& token = "95") {
  return ReadText(absl::StrCat(R"({"model_type": "qwen2_vl",
      "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 16,
      "vocab_size": 97, "num_attention_heads": 4, "num_key_value_heads": 2,
      "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
      "image_token_id": )",
                               token, R"(, "vision_config": )", vision, "}"));
}

// A small tower, with more members.
std::string Tower(const std::string& more) {
  return absl::StrCat(R"({"depth": 1, "embed_dim": 16, "hidden_size": 32)",
                      more.empty() ? "" : ", ", more, "}");
}

TEST(VisionConfigTest, Published) {
  const JsonDocument json =
      ReadJson(GoldenPath("published/Qwen2-VL-7B-Instruct.json"));
  const auto a = ArchitectureFromConfig(json.root());
  ASSERT_TRUE(a.ok()) << a.status();
  const VisionConfig& v = a->config.vision;
  EXPECT_EQ(v.num_layers, 32);
  EXPECT_EQ(v.hidden_size, 1280);
  EXPECT_EQ(v.patch_values(), 1176);
  EXPECT_EQ(v.merged_size(), 5120);
  EXPECT_EQ(v.attention.num_heads, 16);
  EXPECT_EQ(v.attention.head_dim, 80);
  EXPECT_FALSE(v.attention.causal);
  EXPECT_EQ(v.attention.rope.sections, (std::vector<int>{20, 20}));
  EXPECT_EQ(v.attention.rope.frequencies.size(), 40u);
  EXPECT_EQ(v.attention.rope.frequencies[20], 1.0);
  EXPECT_EQ(v.mlp.intermediate_size, 5120);
  EXPECT_EQ(v.mlp.activation, Activation::kQuickGelu);
  EXPECT_EQ(v.image_token, 151655);
  EXPECT_EQ(a->vision.layers.size(), 32u);
  EXPECT_EQ(a->vision.layers[31].k_proj.name,
            "visual.blocks.31.attn.qkv.weight");
  EXPECT_EQ(a->vision.layers[31].k_proj.first_row, 1280);
}

TEST(VisionConfigTest, WithoutAConfigThereIsNoTower) {
  const auto a = Read("null");
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->config.vision.num_layers, 0);
  EXPECT_TRUE(a->vision.layers.empty());
}

TEST(VisionConfigTest, FieldsOfBothSpellings) {
  const auto a = Read(Tower(R"("num_heads": 2, "in_channels": 4,
      "in_chans": 4, "patch_size": 8, "spatial_patch_size": 8,
      "temporal_patch_size": 1, "spatial_merge_size": 3, "mlp_ratio": 2,
      "hidden_act": "gelu", "model_type": "qwen2_vl",
      "rope_parameters": {"rope_type": "axial", "rope_theta": 100.0})"));
  ASSERT_TRUE(a.ok()) << a.status();
  const VisionConfig& v = a->config.vision;
  EXPECT_EQ(v.patch_values(), 4 * 8 * 8);
  EXPECT_EQ(v.merged_size(), 16 * 9);
  EXPECT_EQ(v.mlp.intermediate_size, 32);
  EXPECT_EQ(v.mlp.activation, Activation::kGelu);
  EXPECT_EQ(v.attention.rope.theta, 100.0);
  EXPECT_NEAR(v.attention.rope.frequencies[1], 0.1, 1e-7);
}

struct Bad {
  const char* more;
  const char* error;
};

TEST(VisionConfigTest, BadFieldsAreNamed) {
  for (const Bad& bad : {
           Bad{"\"depth\": 0", "config: vision_config.depth: must be in"},
           {"\"num_heads\": 3", "vision_config: num_heads: 3 heads of"},
           {"\"num_heads\": 8", "vision_config: num_heads: 8 heads of"},
           {"\"num_heads\": 2, \"hidden_size\": 64",
            "hidden_size: expected the text's 32, got 64"},
           {"\"num_heads\": 2, \"in_chans\": 1",
            "vision_config.in_chans: expected 3, got 1"},
           {"\"num_heads\": 2, \"spatial_patch_size\": 16",
            "vision_config.spatial_patch_size: expected 14, got 16"},
           {"\"num_heads\": 2, \"patch_size\": [14, 14]",
            "vision_config.patch_size"},
           {"\"num_heads\": 2, \"mlp_ratio\": 0", "vision_config.mlp_ratio"},
           {"\"num_heads\": 2, \"hidden_act\": \"mish\"",
            "vision_config.hidden_act: \"mish\" is not implemented"},
           {"\"num_heads\": 2, \"fullatt_block_indexes\": [1]",
            "vision_config.fullatt_block_indexes: a field that is not"},
           {"\"num_heads\": 2, \"rope_parameters\": 3", "rope_parameters"},
           {"\"num_heads\": 2, \"rope_parameters\": {\"rope_type\": \"yarn\"}",
            "rope_parameters.rope_type: 'yarn' is not implemented"},
           {"\"num_heads\": 2, \"rope_parameters\": {\"rope_type\": \"\\n\"}",
            "rope_parameters.rope_type: '\\n' is not implemented"},
           {"\"num_heads\": 2, \"rope_parameters\": {\"rope_theta\": 0}",
            "rope_theta: must be > 0"},
       }) {
    // A member that is given again replaces the small tower's.
    std::string tower = Tower("");
    const std::string more = bad.more;
    if (absl::StrContains(more, "\"depth\"")) {
      tower = absl::StrCat("{", more, "}");
    } else if (absl::StrContains(more, "\"hidden_size\"")) {
      tower = absl::StrCat("{\"depth\": 1, \"embed_dim\": 16, ", more, "}");
    } else {
      tower = Tower(more);
    }
    const auto a = Read(tower);
    ASSERT_FALSE(a.ok()) << more;
    EXPECT_TRUE(absl::StrContains(a.status().message(), bad.error))
        << a.status();
  }
  EXPECT_TRUE(absl::StrContains(
      Read(Tower("\"num_heads\": 2"), "97").status().message(),
      "image_token_id: 97, but vocab_size is 97"));
  EXPECT_TRUE(absl::StrContains(Read("7").status().message(), "vision_config"));
}

}  // namespace
}  // namespace qk::testing
