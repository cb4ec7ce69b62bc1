// Tests good and bad captures and rules for the vision tower.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "tests/server/convert/convert_testing.h"

namespace qk {
namespace {

using Code = absl::StatusCode;
using ::testing::ElementsAre;
using testing::FakeModels;

constexpr char kOneImage[] =
    "input {token_ids {ids: [1, 200, 2]} images {patches {"
    "frames: 1 rows: 2 columns: 2 values: '0123456789abcdef'}}}";
constexpr char kNoImage[] = "input {token_ids {ids: [1, 2]}}";

absl::StatusOr<ConvertedRequest> Convert(const std::string& text,
                                         const std::string& model = "vl") {
  FakeModels models;
  models.Add("vl", testing::SmallVisionConfig(), nullptr);
  models.limits.max_list_entries = 5;
  pb::AnalyzeRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request))
      << text;
  request.set_model(model);
  return ConvertAnalyze(request, models.Context());
}

struct BadInput {
  std::string request;
  Code code;
  std::string message;
};

TEST(ConvertVision, BadCapturesAreNamed) {
  const std::string field = "capture.vision_layers";
  const std::string image = kOneImage;
  for (const BadInput& bad : std::vector<BadInput>{
           {image + "capture {vision_layers: 2}", Code::kOutOfRange,
            field + "[0]: 2 is outside [0, 2)"},
           {image + "capture {vision_layers: [0, -1]}", Code::kOutOfRange,
            field + "[1]: -1 is outside [0, 2)"},
           {image + "capture {vision_layers: [1, 1]}", Code::kInvalidArgument,
            field + "[1]: 1 is given twice"},
           {image + "capture {vision_layers: [0, 1, 2, 3, 4, 5]}",
            Code::kInvalidArgument, field + ": got 6, limit 5"},
           {std::string(kNoImage) + "capture {vision_layers: 0}",
            Code::kInvalidArgument, field + ": the input has no images"},
           {image + "capture {vision_layers: 0 form: RAW positions: 1 "
                    "points: HOOK_PATTERN}",
            Code::kInvalidArgument,
            field + ": HOOK_PATTERN is captured in the text only"},
           {image + "capture {vision_layers: 0 phase: DECODE} "
                    "generate {max_new_tokens: 1}",
            Code::kInvalidArgument,
            field +
                ": the tower has no DECODE; set phase to PREFILL or BOTH"}}) {
    const auto converted = Convert(bad.request);
    EXPECT_EQ(converted.status().code(), bad.code) << bad.request;
    EXPECT_EQ(std::string(converted.status().message()), bad.message);
  }
  const auto text =
      Convert(std::string(kNoImage) + "capture {vision_layers: 0}", "bare");
  EXPECT_EQ(text.status().code(), Code::kInvalidArgument);
  EXPECT_EQ(std::string(text.status().message()),
            field + ": the model has no vision tower");
}

TEST(ConvertVision, BadRulesAreNamed) {
  const auto rule = [](const std::string& text) {
    return "arms {name: 'a' disruptions {tower: VISION top_k {k: 1}" + text +
           "}}";
  };
  const std::string field = "arms[0].disruptions[0]";
  struct BadRule {
    std::string rule, message;
  };
  for (const BadRule& bad : std::vector<BadRule>{
           {"stat_span {begin: 1}",
            ".stat_span: has no meaning in tower VISION"},
           {"positions {begin: 0}",
            ".positions: has no meaning in tower VISION"},
           {"reselect: true", ".reselect: has no meaning in tower VISION"},
           {"phase: BOTH", ".phase: tower VISION has no phase but PREFILL"},
           {"kv_cache: ATTENTION_ONLY", ".kv_cache: tower VISION has no cache"},
           {"layers: 2", ".layers[0]: 2 is outside [0, 2)"},
           {"heads: 2", ".heads[0]: 2 is outside [0, 2) of Q"}}) {
    const auto converted = Convert(kOneImage + rule(bad.rule));
    EXPECT_EQ(converted.status().code(), Code::kInvalidArgument) << bad.rule;
    EXPECT_EQ(std::string(converted.status().message()), field + bad.message);
  }
  const auto message = [](const absl::StatusOr<ConvertedRequest>& converted) {
    return std::string(converted.status().message());
  };
  EXPECT_EQ(message(Convert(kNoImage + rule(""))),
            field + ".tower: the input has no images");
  EXPECT_EQ(message(Convert(kNoImage + rule(""), "bare")),
            field + ".tower: the model has no vision tower");
  EXPECT_EQ(
      message(Convert(kOneImage + rule("} disruptions {tower: VISION "
                                       "bottom_k {k: 1} layers: 1"))),
      "arms[0].disruptions[1]: overlaps arms[0].disruptions[0] at layer 1, Q, "
      "head 0");
  EXPECT_EQ(message(Convert(std::string(kOneImage) +
                            "arms {name: 'a' disruptions {tower: 3 "
                            "top_k {k: 1}}}")),
            field + ".tower: unknown value 3");
}

TEST(ConvertVision, RulesOfTextAndTowerDoNotOverlap) {
  const auto converted =
      Convert(std::string(kOneImage) +
              "arms {name: 'a' disruptions {tower: VISION top_k {k: 2}} "
              "disruptions {top_k {k: 1}}}");
  ASSERT_TRUE(converted.ok()) << converted.status();
  const std::vector<DisruptionRule>& rules = converted->spec.arms[0].rules;
  EXPECT_TRUE(rules[0].vision);
  EXPECT_THAT(rules[0].layers, ElementsAre(0, 1));
  EXPECT_FALSE(rules[1].vision);
  EXPECT_THAT(rules[1].layers, ElementsAre(0, 1, 2));
}

TEST(ConvertVision, TheExpandedRequestIsTheSameRequest) {
  const auto converted =
      Convert(std::string(kOneImage) +
              "capture {vision_layers: [1, 0] heads: 3} "
              "arms {name: 'a' disruptions {tower: VISION top_k {k: 2}}}");
  ASSERT_TRUE(converted.ok()) << converted.status();
  EXPECT_THAT(converted->spec.capture.vision_layers, ElementsAre(0, 1));
  const pb::Image& image = converted->expanded.input().images(0);
  EXPECT_EQ(image.patches().rows(), 2);
  EXPECT_TRUE(image.patches().values().empty());
  EXPECT_EQ(image.sha256().size(), 64u);
  EXPECT_FALSE(converted->expanded.arms(0).disruptions(0).has_stat_span());
  EXPECT_EQ(converted->expanded.arms(0).disruptions(0).tower(),
            pb::DisruptionRule::VISION);
  pb::AnalyzeRequest again = converted->expanded;
  again.mutable_input()->mutable_images(0)->mutable_patches()->set_values(
      "0123456789abcdef");
  const auto second = Convert(again.ShortDebugString());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->expanded.SerializeAsString(),
            converted->expanded.SerializeAsString());
}

TEST(ConvertVision, PatchesWithoutValuesAreRefused) {
  const auto converted = Convert(
      "input {token_ids {ids: 200} "
      "images {patches {frames: 1 rows: 2 columns: 2}}}");
  EXPECT_EQ(
      converted.status().message(),
      "input.images[0]: patches: expected 4 values (4 patches of 1), got 0");
}

TEST(ConvertVision, OfRequestsThatDoNotAskNothingIsCaptured) {
  const auto converted = Convert(kOneImage);
  ASSERT_TRUE(converted.ok()) << converted.status();
  EXPECT_TRUE(converted->spec.capture.vision_layers.empty());
  EXPECT_EQ(converted->expanded.capture().vision_layers_size(), 0);
}

TEST(ConvertVision, ScoreTakesNoRuleOfTheTower) {
  FakeModels models;
  models.Add("vl", testing::SmallVisionConfig(), nullptr);
  pb::ScoreRequest request;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "model: 'vl' arm {name: 'a' disruptions {tower: VISION top_k {k: 1}}} "
      "pairs {context {token_ids {ids: 1}} continuation {token_ids {ids: 2}}}",
      &request));
  EXPECT_EQ(ConvertScore(request, models.Context()).status().message(),
            "arm.disruptions[0].tower: VISION has no meaning in Score, which "
            "takes no images");
}

}  // namespace
}  // namespace qk
