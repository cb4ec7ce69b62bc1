// Compares RoPE of config.json files with transformers (make_rope_goldens.py),
// and tests what is refused.
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/architectures/architecture.h"
#include "engine/base/check.h"
#include "tests/engine/formats/testing.h"

namespace qk::testing {
namespace {

// Allows a few float32 ulps: pow() of torch and of libm differ.
constexpr double kRelative = 4e-7;

absl::Status CheckPass(const std::string& name, const ModelConfig& config,
                       const JsonValue& pass) {
  QK_ASSIGN_OR_RETURN(const int64_t layer, pass.GetInt64("layer"));
  QK_ASSIGN_OR_RETURN(const int64_t positions, pass.GetInt64("positions"));
  QK_ASSIGN_OR_RETURN(const double factor, pass.GetDouble("attention_factor"));
  QK_ASSIGN_OR_RETURN(const JsonValue expected, pass.GetArray("frequencies"));
  const RopeConfig& rope = config.layers[layer].attention.rope;
  const std::vector<double> got = rope.FrequenciesFor(positions);
  EXPECT_NEAR(rope.attention_factor, factor, 1e-12) << name;
  EXPECT_EQ(static_cast<int64_t>(got.size()), expected.size()) << name;
  EXPECT_EQ(rope.rotary_dims, 2 * expected.size()) << name;
  size_t i = 0;
  return expected.ForEachElement([&](JsonValue element) -> absl::Status {
    QK_ASSIGN_OR_RETURN(const double want, element.AsDouble());
    EXPECT_NEAR(got[i], want, kRelative * want)
        << name << ", " << positions << " positions, pair " << i;
    ++i;
    return absl::OkStatus();
  });
}

TEST(RopeGoldenTest, FrequenciesEqualTransformers) {
  const auto file = JsonDocument::Parse(
      "cases",
      ReadFile(std::string(QK_SOURCE_DIR) + "/tests/goldens/rope/cases.json"),
      {});
  ASSERT_TRUE(file.ok()) << file.status();
  int passes = 0;
  const absl::Status status = file->root().Get("cases")->ForEachElement(
      [&](JsonValue one) -> absl::Status {
        QK_ASSIGN_OR_RETURN(const absl::string_view name,
                            one.GetString("name"));
        QK_ASSIGN_OR_RETURN(const JsonValue config, one.GetObject("config"));
        QK_ASSIGN_OR_RETURN(const Architecture a,
                            ArchitectureFromConfig(config));
        return one.Get("passes")->ForEachElement([&](JsonValue pass) {
          ++passes;
          return CheckPass(std::string(name), a.config, pass);
        });
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(passes, 21);
}

absl::StatusOr<Architecture> Read(const std::string& rope,
                                  const std::string& type = "llama") {
  const auto config =
      JsonDocument::Parse("config",
                          absl::StrCat(R"({"model_type": ")", type, R"(",
  "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 53,
  "vocab_size": 97, "max_position_embeddings": 256, "num_attention_heads": 4,
  "num_key_value_heads": 4, )",
                                       rope, "}"),
                          {});
  EXPECT_TRUE(config.ok()) << config.status() << " " << rope;
  if (!config.ok()) return config.status();
  return ArchitectureFromConfig(config->root());
}

RopeConfig Rope(const std::string& rope, const std::string& type = "llama") {
  const auto a = Read(rope, type);
  EXPECT_TRUE(a.ok()) << a.status() << " " << rope;
  return a.ok() ? a->config.layers[0].attention.rope : RopeConfig{};
}

TEST(RopeTest, BothPlacesSayTheSame) {
  const RopeConfig old = Rope(
      R"("rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2})");
  EXPECT_EQ(old.scaling, "linear");
  const char kInside[] =
      R"("rope_parameters": {"rope_theta": 500.0, "rope_type": "linear",
                             "factor": 2.0})";
  EXPECT_EQ(Rope(kInside), old);
  EXPECT_EQ(Rope(absl::StrCat(kInside, R"(, "rope_theta": 500)")), old);
  EXPECT_EQ(
      Rope(absl::StrCat(
          kInside, R"(, "rope_scaling": {"type": "linear", "factor": 2})")),
      old);
}

TEST(RopeTest, ContextOfDynamicScaling) {
  const auto a = Read(R"("rope_scaling": {"type": "dynamic", "factor": 2.5})");
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(a->config.context_length, 640);
  const RopeConfig& rope = a->config.layers[0].attention.rope;
  EXPECT_EQ(rope.original_context, 256);
  EXPECT_EQ(rope.FrequenciesFor(256), rope.frequencies);
  EXPECT_LT(rope.FrequenciesFor(257).back(), rope.frequencies.back());
  EXPECT_EQ(rope.FrequenciesFor(257).front(), 1.0);
}

struct BadRope {
  const char* text;
  const char* expected;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  const char* type = "llama";
};

constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

const BadRope kBad[] = {
    {R"("rope_theta": 1, "rope_parameters": {"rope_theta": 2})",
     "config: rope_theta: 1, but rope_parameters.rope_theta is 2"},
    {R"("rope_scaling": {"type": "linear", "factor": 2},
        "rope_parameters": {"rope_type": "linear", "factor": 3})",
     "config: rope_scaling: says something else than rope_parameters"},
    {R"("rope_scaling": {"type": "linear", "factor": 2},
        "rope_parameters": {"rope_theta": 10000})",
     "config: rope_scaling: says something else than rope_parameters"},
    {R"("rope_scaling": {"type": "yarn", "rope_type": "linear"})",
     "rope_type: 'linear', but type is 'yarn'"},
    {R"("rope_scaling": {"type": "ntk", "factor": 2})",
     "config: rope_scaling.type: 'ntk' is not implemented", kUnimplemented},
    {R"("rope_scaling": {"type": "n\ntk", "factor": 2})",
     R"(rope_scaling.type: 'n\ntk' is not implemented)", kUnimplemented},
    {R"("rope_scaling": {"type": "n\ntk", "rope_type": "caf\u00e9"})",
     R"(rope_type: 'caf\303\251', but type is 'n\ntk')"},
    {R"("rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]})",
     "config: rope_scaling.type: 'mrope' is not implemented", kUnimplemented},
    {R"("rope_parameters": {"rope_type": "proportional"})",
     "rope_parameters.rope_type: 'proportional'", kUnimplemented},
    {R"("rope_scaling": {"type": "linear", "factor": 2, "alpha": 3})",
     "config: rope_scaling.alpha: a field that is not implemented, got 3",
     kUnimplemented},
    {R"("rope_parameters": {"full_attention": {"rope_theta": 3}})",
     "rope_parameters.full_attention: a field", kUnimplemented},
    {R"("rope_parameters": {"partial_rotary_factor": 0.5})",
     "rope_parameters.partial_rotary_factor: 0.5 is not", kUnimplemented},
    {R"("rope_parameters": {"mrope_section": [1, 1, 2]})",
     "rope_parameters.mrope_section: not a field", kUnimplemented},
    {R"("rope_theta": 1e300)", "config: rope_theta: "},
    {R"("rope_scaling": {"type": "linear", "factor": 1e60})",
     "gives a frequency of 0"},
    {R"("rope_scaling": {"type": "dynamic"})", "rope_scaling.factor: missing"},
    {R"("rope_scaling": {"type": "dynamic", "factor": 0.5})",
     "factor: must be >= 1"},
    {R"("rope_scaling": {"type": "dynamic", "factor": 1e9})",
     "factor: gives a context of"},
    {R"("rope_theta": 1e38, "rope_scaling": {"type": "dynamic", "factor": 9})",
     "factor: gives a frequency of 0 at 2304 positions"},
    {R"("rope_scaling": {"type": "yarn", "factor": -4})",
     "factor: must be > 0"},
    {R"("rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": -1})",
     "beta_fast: must be > 0"},
    {R"("rope_scaling": {"type": "yarn", "factor": 4, "truncate": 1})",
     "truncate: must be true or false"},
    {R"("rope_scaling": {"type": "yarn", "factor": 4, "mscale": -1})",
     "mscale"},
    {R"("rope_scaling": {"type": "yarn", "factor": 4,
                         "original_max_position_embeddings": 0})",
     "original_max_position_embeddings: must be in"},
    {R"("rope_theta": 0.5, "rope_scaling": {"type": "yarn", "factor": 4})",
     "rope_theta: must be > 1 for yarn, got 0.5"},
    {R"("rope_scaling": {"type": "llama3", "factor": 8,
        "low_freq_factor": 4, "high_freq_factor": 4})",
     "high_freq_factor: must be over low_freq_factor 4, got 4"},
    {R"("rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1]})",
     "rope_scaling.long_factor: missing"},
    {R"("rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1],
                         "long_factor": [1, 1, 1, 1]})",
     "rope_scaling.short_factor: must have 4 factors, got 3"},
    {R"("rope_scaling": {"type": "longrope", "short_factor": [1, 1, 0, 1],
                         "long_factor": [1, 1, 1, 1]})",
     "rope_scaling.short_factor[2]: must be > 0, got 0"},
    {R"("rope_scaling": {"type": "longrope", "short_factor": [1, 1, "1", 1],
                         "long_factor": [1, 1, 1, 1]})",
     "rope_scaling.short_factor[2]"},
    {R"("original_max_position_embeddings": 64,
        "rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1],
                         "long_factor": [1, 1, 1, 1],
                         "original_max_position_embeddings": 32})",
     "original_max_position_embeddings: 64, but rope_scaling."
     "original_max_position_embeddings is 32"},
    {R"("partial_rotary_factor": 1.5)",
     "partial_rotary_factor: must be in (0, 1], got 1.5",
     absl::StatusCode::kInvalidArgument, "phi3"},
    {R"("partial_rotary_factor": 0.375)",
     "partial_rotary_factor: 0.375 of 8 dims is 3, must be even",
     absl::StatusCode::kInvalidArgument, "phi3"},
    {R"("partial_rotary_factor": 0)", "partial_rotary_factor: must be > 0",
     absl::StatusCode::kInvalidArgument, "phi3"},
    {R"("rope_scaling": {"mrope_section": [1, 1, 1]})",
     "mrope_section: must be 3 numbers of sum 4, got 3 of sum 3",
     absl::StatusCode::kInvalidArgument, "qwen2_vl"},
    {R"("rope_scaling": {"mrope_section": [5, 0, -1]})",
     "mrope_section[0]: must be in [0, 4], got 5",
     absl::StatusCode::kInvalidArgument, "qwen2_vl"},
    {R"("rope_scaling": {"mrope_section": 4})",
     "mrope_section: must be an array", absl::StatusCode::kInvalidArgument,
     "qwen2_vl"},
};

TEST(RopeTest, BadOnesAreRefusedWithTheField) {
  for (const BadRope& bad : kBad) {
    const absl::Status status = Read(bad.text, bad.type).status();
    EXPECT_EQ(status.code(), bad.code) << bad.text << ": " << status;
    EXPECT_THAT(std::string(status.message()),
                ::testing::HasSubstr(bad.expected))
        << bad.text;
    ExpectGoodMessage(status);
  }
}

}  // namespace
}  // namespace qk::testing
