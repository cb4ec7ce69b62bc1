// Tests what the product of rules (tests/engine/hooks/rule_product_test.cc)
// cannot show: groups of another size, single heads, and passes that start
// anywhere.
#include "engine/types/rule_shape.h"

#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace qk::testing {
namespace {

using Rule = DisruptionRule;

// Returns `heads` query heads on 2 KV heads of 4 dims.
AttentionConfig Heads(int heads) {
  AttentionConfig c;
  c.num_heads = heads;
  c.num_kv_heads = 2;
  c.head_dim = 4;
  return c;
}

Rule QueryHeadRule(Rule::Select select) {
  Rule rule;
  rule.kv_grouping = Rule::KvGrouping::kQueryHead;
  rule.select = select;
  return rule;
}

bool ListDiffers(const std::vector<HeadDim>& entries) {
  Rule rule = QueryHeadRule(Rule::Select::kExplicit);
  rule.entries = entries;
  return CopiesDiffer(rule, Qkv::kK, Heads(6));
}

TEST(CopiesDiffer, WhereAListNamesADimForAPartOfAGroup) {
  EXPECT_FALSE(ListDiffers({{0, 1}, {1, 1}, {2, 1}}));
  EXPECT_FALSE(ListDiffers({{5, 0}, {3, 0}, {4, 0}, {2, 3}, {1, 3}, {0, 3}}));
  EXPECT_TRUE(ListDiffers({{0, 1}, {1, 1}}));
  EXPECT_TRUE(ListDiffers({{0, 1}, {1, 1}, {2, 2}}));
  EXPECT_TRUE(ListDiffers({{2, 1}, {3, 1}, {4, 1}}));
  EXPECT_TRUE(ListDiffers({{0, 1}, {1, 1}, {2, 1}, {0, 2}}));
}

TEST(CopiesDiffer, WhereHeadsNameAPartOfAGroup) {
  Rule rule = QueryHeadRule(Rule::Select::kTopK);
  for (const auto& [heads, differ] :
       std::vector<std::pair<std::vector<int>, bool>>{{{}, false},
                                                      {{0, 1, 2}, false},
                                                      {{3, 4, 5}, false},
                                                      {{0, 1}, true},
                                                      {{1, 2, 3}, true},
                                                      {{5}, true}}) {
    rule.heads = heads;
    EXPECT_EQ(CopiesDiffer(rule, Qkv::kV, Heads(6)), differ);
    EXPECT_FALSE(CopiesDiffer(rule, Qkv::kQ, Heads(6)));
    EXPECT_FALSE(CopiesDiffer(rule, Qkv::kV, Heads(2)));
  }
  rule.heads = {1};
  rule.kv_grouping = Rule::KvGrouping::kKvHead;
  EXPECT_FALSE(CopiesDiffer(rule, Qkv::kV, Heads(6)));
}

TEST(CopiesDiffer, WhereHeadsDrawTheirOwnDims) {
  Rule rule = QueryHeadRule(Rule::Select::kRandomK);
  rule.exclude_top = 2;
  for (const auto& [k, differ] :
       std::vector<std::pair<int, bool>>{{0, false}, {1, true}, {2, false}}) {
    rule.k = k;
    rule.axis = Rule::Axis::kPerHead;
    EXPECT_EQ(CopiesDiffer(rule, Qkv::kK, Heads(6)), differ) << k;
    EXPECT_FALSE(CopiesDiffer(rule, Qkv::kK, Heads(2))) << k;
    rule.axis = Rule::Axis::kPerToken;
    EXPECT_FALSE(CopiesDiffer(rule, Qkv::kK, Heads(6))) << k;
  }
}

void ExpectRange(Range got, int begin, int end) {
  EXPECT_EQ(got.size(), end - begin);
  if (begin == end) return;
  EXPECT_EQ(got.begin, begin);
  EXPECT_EQ(got.end, end);
}

TEST(RulePositions, AreThoseOfThePass) {
  Rule rule;
  rule.stat_span = {2, 9};
  rule.positions = {4, 5};
  RowSpan span;
  span.rows = 6;
  ExpectRange(CountedPositions(rule, span), 2, 6);
  ExpectRange(ChangedPositions(rule, span), 4, 5);
  span.first_position = 6;
  ExpectRange(CountedPositions(rule, span), 6, 9);
  ExpectRange(ChangedPositions(rule, span), 0, 0);
  span.phase = Phase::kDecode;
  span.rows = 1;
  span.first_position = 20;
  ExpectRange(CountedPositions(rule, span), 20, 21);
  ExpectRange(ChangedPositions(rule, span), 20, 21);
}

TEST(ChoosingPhases, OfEveryKindOfRule) {
  constexpr PhaseSet kPrefill = 1, kDecode = 2, kBoth = 3;
  Rule rule;
  const auto phases = [&](PhaseSet phase, bool reselect) {
    rule.phase = phase;
    rule.reselect = reselect;
    return ChoosingPhases(rule);
  };
  EXPECT_EQ(phases(kPrefill, false), kPrefill);
  EXPECT_EQ(phases(kDecode, false), kPrefill);
  EXPECT_EQ(phases(kBoth, false), kPrefill);
  EXPECT_EQ(phases(kPrefill, true), kPrefill);
  EXPECT_EQ(phases(kDecode, true), kBoth);
  EXPECT_EQ(phases(kBoth, true), kBoth);
  rule.axis = Rule::Axis::kPerToken;
  for (PhaseSet phase : {kPrefill, kDecode, kBoth}) {
    EXPECT_EQ(phases(phase, false), phase);
    EXPECT_EQ(phases(phase, true), phase);
  }
}

}  // namespace
}  // namespace qk::testing
