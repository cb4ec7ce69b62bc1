// Compares what ConvertAnalyze accepts and refuses, over the whole product of a
// rule's fields, with the list of refusals in rule_product.h.
#include "tests/engine/hooks/rule_product.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/convert/convert_testing.h"

namespace qk {
namespace {

using Rule = DisruptionRule;
using Proto = pb::DisruptionRule;
using testing::Choice;
using testing::Combination;
using ::testing::ElementsAreArray;

void SetSelect(const Combination& c, Proto* out) {
  const Rule& rule = c.rule;
  switch (rule.select) {
    case Rule::Select::kTopK:
      return out->mutable_top_k()->set_k(rule.k);
    case Rule::Select::kBottomK:
      return out->mutable_bottom_k()->set_k(rule.k);
    case Rule::Select::kRandomK:
      out->mutable_random_k()->set_k(rule.k);
      out->mutable_random_k()->set_seed(rule.seed);
      return out->mutable_random_k()->set_exclude_top(rule.exclude_top);
    case Rule::Select::kThreshold:
      return out->mutable_threshold()->set_lambda(rule.lambda);
    case Rule::Select::kExplicit:
      for (const HeadDim& entry : rule.entries) {
        pb::HeadDim* to = out->mutable_explicit_()->add_entries();
        to->set_head(entry.head);
        to->set_dim(entry.dim);
      }
      return;
  }
}

// Returns the message that asks for a combination. The proto enums' numbers are
// one more than the engine's.
Proto Message(const Combination& c) {
  const Rule& rule = c.rule;
  Proto out;
  SetSelect(c, &out);
  for (Qkv tensor : rule.tensors) {
    out.add_tensors(static_cast<pb::QkvTensor>(static_cast<int>(tensor) + 1));
  }
  const auto number = [](auto value) { return static_cast<int>(value) + 1; };
  out.set_axis(static_cast<Proto::Axis>(number(rule.axis)));
  out.set_kv_grouping(static_cast<Proto::KvGrouping>(number(rule.kv_grouping)));
  out.set_kv_cache(static_cast<Proto::KvCache>(number(rule.kv_cache)));
  out.set_point(static_cast<Proto::Point>(number(rule.point)));
  out.set_replace(static_cast<Proto::Replace>(number(rule.replace)));
  out.set_phase(static_cast<pb::Phase>(rule.phase));
  out.set_reselect(rule.reselect);
  if (rule.replace == Rule::Replace::kScale) out.set_factor(rule.factor);
  if (rule.vision) out.set_tower(Proto::VISION);
  for (int head : rule.heads) out.add_heads(head);
  return out;
}

void ExpectSame(const Rule& got, const Rule& want) {
  EXPECT_THAT(got.tensors, ElementsAreArray(want.tensors));
  EXPECT_EQ(got.select, want.select);
  EXPECT_EQ(got.axis, want.axis);
  EXPECT_EQ(got.kv_grouping, want.kv_grouping);
  EXPECT_EQ(got.kv_cache, want.kv_cache);
  EXPECT_EQ(got.point, want.point);
  EXPECT_EQ(got.replace, want.replace);
  EXPECT_EQ(got.factor, want.factor);
  EXPECT_EQ(got.phase, want.phase);
  EXPECT_EQ(got.reselect, want.reselect);
  EXPECT_EQ(got.vision, want.vision);
  EXPECT_THAT(got.heads, ElementsAreArray(want.heads));
  switch (want.select) {
    case Rule::Select::kRandomK:
      EXPECT_EQ(got.seed, want.seed);
      EXPECT_EQ(got.exclude_top, want.exclude_top);
      [[fallthrough]];
    case Rule::Select::kTopK:
    case Rule::Select::kBottomK:
      EXPECT_EQ(got.k, want.k);
      return;
    case Rule::Select::kThreshold:
      EXPECT_EQ(got.lambda, want.lambda);
      return;
    case Rule::Select::kExplicit:
      ASSERT_EQ(got.entries.size(), want.entries.size());
      for (size_t i = 0; i < want.entries.size(); ++i) {
        EXPECT_EQ(got.entries[i].head, want.entries[i].head);
        EXPECT_EQ(got.entries[i].dim, want.entries[i].dim);
      }
      return;
  }
}

class RuleProductTest : public ::testing::TestWithParam<Choice> {};
INSTANTIATE_TEST_SUITE_P(Choices, RuleProductTest,
                         ::testing::ValuesIn(testing::kChoices));

TEST_P(RuleProductTest, IsTakenOrRefusedAsTheListSays) {
  testing::FakeModels models;
  models.Add("vl", testing::SmallVisionConfig(), nullptr);
  pb::AnalyzeRequest text;
  text.set_model("m");
  text.mutable_input()->set_text("abcd");
  pb::AnalyzeRequest image;
  image.set_model("vl");
  image.mutable_input()->mutable_token_ids()->add_ids(200);
  auto* patches = image.mutable_input()->add_images()->mutable_patches();
  patches->set_frames(1);
  patches->set_rows(2);
  patches->set_columns(2);
  patches->set_values("0123456789abcdef");
  const std::vector<testing::Refusal> refusals = testing::Refusals();
  int accepted = 0;
  for (bool vision : {false, true}) {
    for (const Combination& c : testing::RuleProduct(GetParam(), vision)) {
      pb::AnalyzeRequest request = vision ? image : text;
      pb::Arm* arm = request.add_arms();
      arm->set_name("a");
      *arm->add_disruptions() = Message(c);
      if (!vision) request.mutable_generate()->set_max_new_tokens(1);
      const auto converted = ConvertAnalyze(request, models.Context());
      const testing::Refusal* refusal = testing::RefusalOf(c, refusals);
      if (refusal == nullptr) {
        ++accepted;
        ASSERT_TRUE(converted.ok()) << c << ": " << converted.status();
        SCOPED_TRACE(::testing::PrintToString(c));
        ExpectSame(converted->spec.arms[0].rules[0], c.rule);
      } else {
        ASSERT_EQ(converted.status().code(), absl::StatusCode::kInvalidArgument)
            << c;
        ASSERT_EQ(std::string(converted.status().message()),
                  absl::StrCat("arms[0].disruptions[0]", refusal->message))
            << c;
      }
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(accepted, 1000);
}

// A refusal that never applies, or applies only where an earlier one does,
// would be dead text.
TEST(RuleProductTest, EveryRefusalHappens) {
  const std::vector<testing::Refusal> refusals = testing::Refusals();
  std::vector<int> times(refusals.size(), 0);
  for (Choice choice : testing::kChoices) {
    for (bool vision : {false, true}) {
      for (const Combination& c : testing::RuleProduct(choice, vision)) {
        const testing::Refusal* refusal = testing::RefusalOf(c, refusals);
        if (refusal != nullptr) ++times[refusal - refusals.data()];
      }
    }
  }
  for (size_t i = 0; i < times.size(); ++i) {
    EXPECT_GT(times[i], 0) << "number " << i << ": " << refusals[i].message;
  }
}

}  // namespace
}  // namespace qk
