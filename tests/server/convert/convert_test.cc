// Tests what good requests become: defaults, ranges, expanded requests.
#include "server/convert/convert.h"

#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "tests/server/convert/convert_testing.h"

namespace qk {
namespace {

using ::testing::ElementsAre;
using testing::FakeModels;

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
  return message;
}

ConvertedRequest Analyze(const FakeModels& models, const std::string& text) {
  auto converted =
      ConvertAnalyze(Parse<pb::AnalyzeRequest>(text), models.Context());
  EXPECT_TRUE(converted.ok()) << converted.status().message();
  return *std::move(converted);
}

TEST(ConvertTest, FillsInEveryDefault) {
  FakeModels models;
  const ConvertedRequest out =
      Analyze(models, "model: 'm' input {text: 'abc'}");
  EXPECT_THAT(out.spec.tokens, ElementsAre('a' + 1, 'b' + 1, 'c' + 1));
  ASSERT_EQ(out.spec.arms.size(), 1u);
  EXPECT_EQ(out.spec.arms[0].name, "clean");
  EXPECT_TRUE(out.spec.arms[0].rules.empty());
  EXPECT_THAT(out.spec.capture.layers, ElementsAre(0, 1, 2));
  EXPECT_THAT(out.spec.capture.points,
              ElementsAre(HookPoint::kRotQ, HookPoint::kRotK, HookPoint::kV));
  EXPECT_FALSE(out.spec.baseline.has_value());
  EXPECT_FALSE(out.spec.logits.has_value());
  EXPECT_FALSE(out.spec.generate.has_value());
  EXPECT_EQ(out.expanded.statistics().lambda(), 5);
  EXPECT_EQ(out.expanded.statistics().top_n(), 8);
  EXPECT_EQ(out.expanded.capture().form(), pb::NORM_OVER_TOKENS);
  EXPECT_EQ(out.expanded.capture().phase(), pb::PREFILL);
  EXPECT_EQ(out.expanded.capture().stage(), pb::BEFORE);
  EXPECT_THAT(out.expanded.input().token_ids().ids(),
              ElementsAre('a' + 1, 'b' + 1, 'c' + 1));
}

TEST(ConvertTest, SpansBecomeAbsolute) {
  FakeModels models;
  const ConvertedRequest out = Analyze(models, R"(
      model: 'm' input {text: 'abcdef'}
      arms {name: 'a' disruptions {top_k {k: 1} stat_span {begin: 1}}}
      arms {name: 'b' disruptions {top_k {k: 1} stat_span {begin: 1 end: 4}
                                   positions {begin: 2}}})");
  const DisruptionRule& a = out.spec.arms[0].rules[0];
  EXPECT_EQ(a.stat_span.begin, 1);
  EXPECT_EQ(a.stat_span.end, 6);
  // stat_span begins at 1, so BOS is left alone.
  EXPECT_EQ(a.positions.begin, 1);
  EXPECT_EQ(a.positions.end, 6);
  const DisruptionRule& b = out.spec.arms[1].rules[0];
  EXPECT_EQ(b.stat_span.end, 4);
  EXPECT_EQ(b.positions.begin, 2);
  EXPECT_EQ(b.positions.end, 6);
}

TEST(ConvertTest, ExpandedRequestConvertsToItself) {
  FakeModels models;
  const ConvertedRequest once = Analyze(models, R"(
      model: 'm' input {text: '<s>abcdef' parse_special: true}
      arms {name: 'clean'}
      arms {name: 'a' disruptions {random_k {k: 2 seed: 7} layers: 2
            kv_grouping: QUERY_HEAD kv_cache: ATTENTION_ONLY phase: BOTH}}
      arms {name: 'b' disruptions {threshold {} tensors: QKV_TENSOR_V
            replace: SCALE factor: 0.5}}
      arms {name: 'c' disruptions {explicit {entries {head: 1 dim: 3}}}}
      arms {name: 'd' preset {name: 'rope_with_llm/mistral/control' seed: 3}}
      generate {max_new_tokens: 3 stop_token_ids: 4}
      capture {layers: [2, 0] heads: 1 positions: [3, 1] form: RAW phase: BOTH
               points: HOOK_V stage: BEFORE_AND_AFTER raw_dtype: BF16}
      compare {} logits {} client_tag: 'tag')");
  EXPECT_TRUE(once.expanded.arms(4).preset().name().empty());
  EXPECT_EQ(once.expanded.arms(4).disruptions_size(), 1);
  EXPECT_EQ(once.expanded.compare().baseline(), "clean");
  EXPECT_THAT(once.expanded.logits().positions(), ElementsAre(6));
  EXPECT_THAT(once.spec.capture.layers, ElementsAre(0, 2));
  const auto twice = ConvertAnalyze(once.expanded, models.Context());
  ASSERT_TRUE(twice.ok()) << twice.status().message();
  google::protobuf::util::MessageDifferencer differ;
  std::string difference;
  differ.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differ.Compare(once.expanded, twice->expanded)) << difference;
  EXPECT_EQ(twice->spec.tokens, once.spec.tokens);
}

TEST(ConvertTest, TextKeepsNulBytes) {
  FakeModels models;
  pb::AnalyzeRequest request;
  request.set_model("m");
  request.mutable_input()->set_text(std::string("a\0b", 3));
  const auto out = ConvertAnalyze(request, models.Context());
  ASSERT_TRUE(out.ok());
  EXPECT_THAT(out->spec.tokens, ElementsAre('a' + 1, 1, 'b' + 1));
}

TEST(ConvertTest, SpecialTokensAreOnlyParsedWhenAsked) {
  FakeModels models;
  EXPECT_EQ(
      Analyze(models, "model: 'm' input {text: '<s>'}").spec.tokens.size(), 3u);
  EXPECT_THAT(
      Analyze(models, "model: 'm' input {text: '<s>' parse_special: true}")
          .spec.tokens,
      ElementsAre(0));
  EXPECT_THAT(
      Analyze(models, "model: 'm' input {text: 'a' add_special_tokens: true}")
          .spec.tokens,
      ElementsAre(0, 'a' + 1));
}

TEST(ConvertTest, StopIdsAreTheModelsOwnUnlessTheyAreIgnored) {
  FakeModels models;
  const std::string start =
      "model: 'm' input {text: 'a'} generate {max_new_tokens: 1 "
      "stop_token_ids: 9 ";
  EXPECT_THAT(Analyze(models, start + "}").spec.generate->stop_ids,
              ElementsAre(9, 0));
  EXPECT_THAT(
      Analyze(models, start + "ignore_eos: true}").spec.generate->stop_ids,
      ElementsAre(9));
}

TEST(ConvertTest, EosIdsOfTheConfigurationEndAGeneration) {
  FakeModels models;
  ModelConfig config = testing::SmallConfig();
  config.eos_ids = {5, 6};
  models.Add("eos", config, nullptr);
  const std::string start =
      "model: 'eos' input {token_ids {ids: 1}} generate {max_new_tokens: 1 ";
  EXPECT_THAT(Analyze(models, start + "}").spec.generate->stop_ids,
              ElementsAre(5, 6));
  EXPECT_THAT(
      Analyze(models, start + "ignore_eos: true}").spec.generate->stop_ids,
      ElementsAre());
}

TEST(ConvertTest, LayersWithoutAttentionAreLeftOut) {
  FakeModels models;
  ModelConfig config = testing::SmallConfig();
  config.layers[1].attention = {};
  config.layers[1].mamba.inner_size = 8;
  models.Add("hybrid", config, nullptr);
  const std::string start = "model: 'hybrid' input {token_ids {ids: 1}} ";
  const auto spec =
      Analyze(models, start + "arms {name: 'a' disruptions {top_k {k: 1}}}")
          .spec;
  EXPECT_THAT(spec.capture.layers, ElementsAre(0, 2));
  EXPECT_THAT(spec.arms[0].rules[0].layers, ElementsAre(0, 2));
}

TEST(ConvertTest, UnknownFieldsAreAnErrorOnlyWhenStrict) {
  FakeModels models;
  pb::AnalyzeRequest request;
  request.set_model("m");
  request.mutable_input()->set_text("a");
  pb::Arm* arm = request.add_arms();
  arm->set_name("clean");
  pb::Arm::GetReflection()->MutableUnknownFields(arm)->AddVarint(99, 1);
  EXPECT_TRUE(ConvertAnalyze(request, models.Context()).ok());
  request.set_strict(true);
  const auto strict = ConvertAnalyze(request, models.Context());
  EXPECT_EQ(strict.status(), absl::InvalidArgumentError(
                                 "arms[0]: unknown field 99 (strict is set)"));
}

TEST(ConvertTest, GenerateAndScoreAreStrictWhenAsked) {
  FakeModels models;
  pb::GenerateRequest generate;
  generate.set_model("m");
  generate.mutable_input()->set_text("a");
  generate.mutable_generate()->set_max_new_tokens(2);
  pb::GenerateSpec* spec = generate.mutable_generate();
  spec->GetReflection()->MutableUnknownFields(spec)->AddVarint(99, 1);
  EXPECT_TRUE(ConvertGenerate(generate, models.Context()).ok());
  generate.set_strict(true);
  EXPECT_EQ(
      ConvertGenerate(generate, models.Context()).status(),
      absl::InvalidArgumentError("generate: unknown field 99 (strict is set)"));
  pb::ScoreRequest score;
  score.set_model("m");
  pb::ScorePair* pair = score.add_pairs();
  pair->mutable_context()->set_text("a");
  pair->mutable_continuation()->set_text("b");
  pair->GetReflection()->MutableUnknownFields(pair)->AddVarint(99, 1);
  EXPECT_TRUE(ConvertScore(score, models.Context()).ok());
  score.set_strict(true);
  EXPECT_EQ(
      ConvertScore(score, models.Context()).status(),
      absl::InvalidArgumentError("pairs[0]: unknown field 99 (strict is set)"));
}

TEST(ConvertTest, RulesMayShareALayerWhereHeadsDiffer) {
  FakeModels models;
  Analyze(models, R"(
      model: 'm' input {text: 'ab'}
      arms {name: 'a' disruptions {explicit {entries {head: 0 dim: 1}}}
                      disruptions {explicit {entries {head: 1 dim: 1}}}
                      disruptions {top_k {k: 1} tensors: QKV_TENSOR_V}})");
}

TEST(ConvertTest, HookPatternOfChosenPositions) {
  FakeModels models;
  const ConvertedRequest out = Analyze(models, R"(
      model: 'm' input {text: 'abc'}
      capture {points: HOOK_PATTERN form: RAW positions: 2})");
  EXPECT_THAT(out.spec.capture.points, ElementsAre(HookPoint::kPattern));
}

TEST(ConvertManyTest, ChecksTheSpecBeforeAnyPrompt) {
  FakeModels models;
  const auto check = [&](const std::string& text) {
    return CheckManySpec(Parse<pb::AnalyzeManySpec>(text), models.Context());
  };
  EXPECT_TRUE(check("request {model: 'm'} aggregate: true").ok());
  EXPECT_EQ(check("request {model: 'm' input {text: 'a'}}").message(),
            "spec.request.input: must not be set; send each prompt in its own "
            "message");
  EXPECT_EQ(check("request {model: 'x'}").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(check("request {model: 'm' capture {form: RAW}} aggregate: true")
                .message(),
            "spec.aggregate: needs capture.form NORM_OVER_TOKENS");
  EXPECT_EQ(check("request {model: 'm' arms {name: 'a' disruptions {top_k {k: "
                  "1} phase: DECODE}}}")
                .message(),
            "spec.request.arms[0].disruptions[0].phase: DECODE acts on "
            "generated tokens, but the request has no generate; expected "
            "PREFILL, BOTH or a generate");
}

TEST(ConvertGenerateTest, OneArmWithoutCapture) {
  FakeModels models;
  const auto out = ConvertGenerate(Parse<pb::GenerateRequest>(R"(
      model: 'm' input {text: 'ab'} generate {max_new_tokens: 2}
      arm {disruptions {top_k {k: 1}}})"),
                                   models.Context());
  ASSERT_TRUE(out.ok()) << out.status().message();
  EXPECT_TRUE(out->spec.capture.off);
  EXPECT_EQ(out->spec.arms.size(), 1u);
  EXPECT_EQ(out->spec.arms[0].rules.size(), 1u);
}

ConvertedScore Score(const FakeModels& models, const std::string& text) {
  auto out = ConvertScore(Parse<pb::ScoreRequest>(text), models.Context());
  EXPECT_TRUE(out.ok()) << out.status().message();
  return *std::move(out);
}

constexpr char kPair[] = R"(model: 'm'
    pairs {context {text: 'abcd' add_special_tokens: true}
           continuation {text: 'ef'}} )";

// The context is the prompt of a disrupted arm, and the continuation's tokens
// are decode rows.
TEST(ConvertScoreTest, ADisruptedArmDecodesTheContinuation) {
  FakeModels models;
  const auto rule = [&](const std::string& options) {
    const ConvertedScore out =
        Score(models, std::string(kPair) + "arm {disruptions {top_k {k: 1} " +
                          options + "}}");
    const RunSpec& spec = out.specs[0];
    EXPECT_EQ(spec.tokens.size(), 5u);
    EXPECT_EQ(spec.continuation.size(), 2u);
    EXPECT_EQ(spec.score->begin, 5);
    EXPECT_EQ(spec.score->end, 7);
    EXPECT_FALSE(spec.generate.has_value());
    return spec.arms[0].rules[0];
  };
  EXPECT_EQ(rule("").stat_span.end, 5);
  EXPECT_EQ(rule("").positions.end, 5);
  EXPECT_EQ(rule("").phase, 1u);
  EXPECT_EQ(rule("phase: DECODE").phase, 2u);
  EXPECT_EQ(rule("phase: BOTH").phase, 3u);
  EXPECT_EQ(rule("phase: BOTH").positions.end, 5);
  EXPECT_EQ(rule("phase: BOTH positions {begin: 1 end: 3}").positions.end, 3);
  EXPECT_TRUE(rule("phase: BOTH reselect: true").reselect);
}

TEST(ConvertScoreTest, ACleanArmIsOnePass) {
  FakeModels models;
  for (const char* arm : {"", "arm {name: 'a'}"}) {
    const ConvertedScore out = Score(models, std::string(kPair) + arm);
    EXPECT_EQ(out.specs[0].tokens.size(), 7u);
    EXPECT_TRUE(out.specs[0].continuation.empty());
    EXPECT_EQ(out.specs[0].score->begin, 5);
    EXPECT_EQ(out.specs[0].score->end, 7);
  }
}

TEST(ConvertScoreTest, APairsArmReplacesTheRequests) {
  FakeModels models;
  const ConvertedScore out = Score(models, R"(model: 'm'
      arm {disruptions {top_k {k: 1}}}
      pairs {context {text: 'a'} continuation {text: 'b'}}
      pairs {context {text: 'a'} continuation {text: 'b'} arm {name: 'clean'}})");
  EXPECT_EQ(out.specs[0].arms[0].rules.size(), 1u);
  EXPECT_EQ(out.specs[1].arms[0].rules.size(), 0u);
}

TEST(ConvertScoreTest, BadPairs) {
  FakeModels models;
  models.limits.max_score_pairs = 2;
  const auto message = [&](const std::string& pairs) {
    const auto out = ConvertScore(
        Parse<pb::ScoreRequest>("model: 'm' " + pairs), models.Context());
    return std::string(out.status().message());
  };
  const std::string good =
      "pairs {context {text: 'a'} continuation {text: 'b'}}";
  EXPECT_EQ(message(""), "pairs: must not be empty");
  EXPECT_EQ(message(good + good + good), "pairs: got 3, limit 2");
  EXPECT_EQ(message(good + "pairs {continuation {text: 'b'}}"),
            "pairs[1].context: exactly one of text, token_ids and chat must "
            "be set");
  EXPECT_EQ(message("pairs {context {text: ''} continuation {text: 'b'}}"),
            "pairs[0].context: must have at least 1 token");
  EXPECT_EQ(message("pairs {context {text: 'a'} continuation {text: '\\377'}}"),
            "pairs[0].continuation.text: invalid UTF-8 at byte 0");
  EXPECT_EQ(message("pairs {context {token_ids {ids: 300}} continuation "
                    "{text: 'b'}}"),
            "pairs[0].context.token_ids.ids[0]: 300 is outside [0, 257)");
  EXPECT_EQ(message("pairs {context {text: '" + std::string(64, 'a') +
                    "'} continuation {text: 'b'}}"),
            "pairs[0]: 65 tokens exceed the model's context of 64");
}

}  // namespace
}  // namespace qk
