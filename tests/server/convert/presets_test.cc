// Compares the presets with a description of what the published code of
// arXiv:2502.01563 does for each model family.
#include "server/convert/presets.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/convert/convert_rule.h"
#include "tests/server/convert/convert_testing.h"

namespace qk {
namespace {

using ::testing::ElementsAre;
using Rules = std::vector<DisruptionRule>;

ModelConfig WideConfig() {
  ModelConfig config = testing::SmallConfig(4, /*sliding=*/true);
  for (LayerConfig& layer : config.layers) layer.attention.head_dim = 256;
  return config;
}

Rules Expand(const std::string& name, const ModelConfig& config,
             uint64_t seed = 0) {
  pb::Preset preset;
  preset.set_name(name);
  preset.set_seed(seed);
  const auto protos = ExpandPreset(preset, "preset", config);
  EXPECT_TRUE(protos.ok());
  Rules rules;
  for (const auto& proto : *protos) {
    const auto rule = ConvertRule(proto, "rule", config, 10, Limits());
    EXPECT_TRUE(rule.ok()) << rule.status().message();
    rules.push_back(*rule);
  }
  return rules;
}

void ExpectCommon(const DisruptionRule& rule) {
  EXPECT_THAT(rule.tensors, ElementsAre(Qkv::kQ, Qkv::kK));
  EXPECT_EQ(rule.point, DisruptionRule::Point::kPostRope);
  EXPECT_EQ(rule.phase, static_cast<unsigned>(Phase::kPrefill));
  EXPECT_FALSE(rule.reselect);
  EXPECT_TRUE(rule.heads.empty());
  EXPECT_EQ(rule.stat_span.size(), 10);
  EXPECT_EQ(rule.positions.size(), 10);
}

struct PerHeadCase {
  const char* name;
  DisruptionRule::Select select;
  int k;
  DisruptionRule::KvGrouping grouping;
  DisruptionRule::KvCache cache;
};

class PerHeadPreset : public ::testing::TestWithParam<PerHeadCase> {};

TEST_P(PerHeadPreset, IsOneRuleWithThePooledMean) {
  const PerHeadCase& want = GetParam();
  const Rules rules = Expand(want.name, WideConfig());
  ASSERT_EQ(rules.size(), 1u);
  ExpectCommon(rules[0]);
  EXPECT_EQ(rules[0].axis, DisruptionRule::Axis::kPerHead);
  EXPECT_EQ(rules[0].replace, DisruptionRule::Replace::kPooledMean);
  EXPECT_EQ(rules[0].select, want.select);
  EXPECT_EQ(rules[0].k, want.k);
  EXPECT_EQ(rules[0].kv_grouping, want.grouping);
  EXPECT_EQ(rules[0].kv_cache, want.cache);
  EXPECT_THAT(rules[0].layers, ElementsAre(0, 1, 2, 3));
}

using R = DisruptionRule;
INSTANTIATE_TEST_SUITE_P(
    Families, PerHeadPreset,
    ::testing::Values(
        PerHeadCase{"rope_with_llm/llama", R::Select::kTopK, 1,
                    R::KvGrouping::kKvHead, R::KvCache::kPersist},
        PerHeadCase{"rope_with_llm/llama/control", R::Select::kBottomK, 1,
                    R::KvGrouping::kKvHead, R::KvCache::kPersist},
        PerHeadCase{"rope_with_llm/qwen2", R::Select::kTopK, 3,
                    R::KvGrouping::kQueryHead, R::KvCache::kAttentionOnly},
        PerHeadCase{"rope_with_llm/qwen2/control", R::Select::kBottomK, 3,
                    R::KvGrouping::kQueryHead, R::KvCache::kAttentionOnly},
        PerHeadCase{"rope_with_llm/mistral", R::Select::kTopK, 1,
                    R::KvGrouping::kQueryHead, R::KvCache::kAttentionOnly},
        PerHeadCase{"rope_with_llm/mistral/control", R::Select::kRandomK, 1,
                    R::KvGrouping::kQueryHead, R::KvCache::kAttentionOnly}));

TEST(PresetsTest, MistralControlIsSeededAndAvoidsTheTopDim) {
  const Rules rules = Expand("rope_with_llm/mistral/control", WideConfig(), 42);
  EXPECT_EQ(rules[0].seed, 42u);
  EXPECT_EQ(rules[0].exclude_top, 1);
}

void ExpectGemma2(const Rules& rules, R::Select select, R::Replace replace) {
  ASSERT_EQ(rules.size(), 2u);
  for (const DisruptionRule& rule : rules) {
    ExpectCommon(rule);
    EXPECT_EQ(rule.axis, R::Axis::kPerToken);
    EXPECT_EQ(rule.select, select);
    EXPECT_EQ(rule.k, 22);
    EXPECT_EQ(rule.replace, replace);
    EXPECT_EQ(rule.kv_grouping, R::KvGrouping::kKvHead);
  }
  EXPECT_EQ(rules[0].kv_cache, R::KvCache::kPersist);
  EXPECT_THAT(rules[0].layers, ElementsAre(0, 2));  // global
  EXPECT_EQ(rules[1].kv_cache, R::KvCache::kAttentionOnly);
  EXPECT_THAT(rules[1].layers, ElementsAre(1, 3));  // sliding
}

TEST(PresetsTest, Gemma2) {
  ExpectGemma2(Expand("rope_with_llm/gemma2", WideConfig()), R::Select::kTopK,
               R::Replace::kZero);
  ExpectGemma2(Expand("rope_with_llm/gemma2/control", WideConfig()),
               R::Select::kBottomK, R::Replace::kPooledMean);
}

TEST(PresetsTest, Gemma2WithoutSlidingLayersIsOneRule) {
  ModelConfig config = WideConfig();
  for (LayerConfig& layer : config.layers) {
    layer.attention.sliding_window.reset();
  }
  const Rules rules = Expand("rope_with_llm/gemma2", config);
  ASSERT_EQ(rules.size(), 1u);
  EXPECT_EQ(rules[0].kv_cache, R::KvCache::kPersist);
}

TEST(PresetsTest, EveryNameExpands) {
  EXPECT_EQ(PresetNames().size(), 8u);
  for (const std::string& name : PresetNames()) {
    EXPECT_FALSE(Expand(name, WideConfig()).empty()) << name;
  }
}

}  // namespace
}  // namespace qk
