// Tests the code and the exact message of every bad input to Analyze.
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "tests/server/convert/convert_testing.h"
#include "tests/server/field_path.h"

namespace qk {
namespace {

using Code = absl::StatusCode;
using testing::FakeModels;

struct BadInput {
  const char* name;
  // Text proto that is merged over a good request for model "m".
  std::string request;
  Code code;
  std::string message;
};

std::ostream& operator<<(std::ostream& os, const BadInput& c) {
  return os << c.name;
}

class ConvertBadInput : public ::testing::TestWithParam<BadInput> {
 protected:
  // GetParam's request.
  static pb::AnalyzeRequest Request();
};

// Checks that the message begins with the path of a field; what is wrong with a
// whole model needs none.
void ExpectPath(const absl::Status& status,
                const google::protobuf::Descriptor& request) {
  const std::string message(status.message());
  if (absl::IsNotFound(status) && absl::StartsWith(message, "model '")) return;
  const std::string path = message.substr(0, message.find(": "));
  EXPECT_TRUE(testing::IsFieldPath(request, path))
      << request.name() << ": " << message;
}

void AddModels(FakeModels* all) {
  FakeModels& models = *all;
  models.limits.max_list_entries = 5;
  models.limits.max_text_bytes = 100;
  models.limits.max_new_tokens = 40;
  models.limits.max_arms = 4;
  models.limits.max_rules_per_arm = 3;
  models.Add(
      "other_vocab",
      [] {
        ModelConfig config = testing::SmallConfig();
        config.vocab_size = 300;
        return config;
      }(),
      nullptr);
  models.Add("other_layers", testing::SmallConfig(5), nullptr);
  models.Add(
      "mamba",
      [] {
        ModelConfig config = testing::SmallConfig();
        for (LayerConfig& layer : config.layers) layer.attention = {};
        return config;
      }(),
      nullptr);
}

pb::AnalyzeRequest ConvertBadInput::Request() {
  pb::AnalyzeRequest request;
  std::string text = GetParam().request;
  if (text.rfind("model:", 0) != 0) text += " model: 'm'";
  if (text.find("input") == std::string::npos) text += " input {text: 'abcd'}";
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request))
      << text;
  return request;
}

TEST_P(ConvertBadInput, HasCodeAndMessage) {
  FakeModels models;
  AddModels(&models);
  const pb::AnalyzeRequest request = Request();
  const auto converted = ConvertAnalyze(request, models.Context());
  EXPECT_EQ(converted.status().code(), GetParam().code);
  EXPECT_EQ(std::string(converted.status().message()), GetParam().message);
  ExpectPath(converted.status(), *pb::AnalyzeRequest::descriptor());
}

// The same errors in the requests of other methods, which have the same parts
// in other places.
TEST_P(ConvertBadInput, R34_NamesAFieldOfTheRequest) {
  FakeModels models;
  AddModels(&models);
  pb::AnalyzeRequest request = Request();
  pb::AnalyzeManySpec many;
  *many.mutable_request() = request;
  many.mutable_request()->clear_input();
  absl::Status status = CheckManySpec(many, models.Context());
  if (status.ok()) {
    status = ConvertPrompt(many, request.input(), models.Context()).status();
  }
  EXPECT_EQ(status.code(), GetParam().code);
  ExpectPath(status, *pb::AnalyzeManyRequest::descriptor());

  pb::GenerateRequest generate;
  generate.set_model(request.model());
  *generate.mutable_input() = request.input();
  *generate.mutable_generate() = request.generate();
  if (request.arms_size() > 0) *generate.mutable_arm() = request.arms(0);
  status = ConvertGenerate(generate, models.Context()).status();
  if (!status.ok()) ExpectPath(status, *pb::GenerateRequest::descriptor());

  pb::ScoreRequest score;
  score.set_model(request.model());
  pb::ScorePair* pair = score.add_pairs();
  *pair->mutable_context() = request.input();
  pair->mutable_continuation()->mutable_token_ids()->add_ids(1);
  if (request.arms_size() > 0) *score.mutable_arm() = request.arms(0);
  status = ConvertScore(score, models.Context()).status();
  if (!status.ok()) ExpectPath(status, *pb::ScoreRequest::descriptor());
  std::swap(*pair->mutable_context(), *pair->mutable_continuation());
  if (request.arms_size() > 0) *pair->mutable_arm() = request.arms(0);
  status = ConvertScore(score, models.Context()).status();
  if (!status.ok()) ExpectPath(status, *pb::ScoreRequest::descriptor());
}

TEST(FieldPathTest, R34_OnlyFieldsOfTheRequestArePaths) {
  const auto& analyze = *pb::AnalyzeRequest::descriptor();
  for (const char* path :
       {"input", "input.token_ids.ids[3]", "arms[0].disruptions[12].top_k.k",
        "arms", "generate.sampling.top_p", "client_tag"}) {
    EXPECT_TRUE(testing::IsFieldPath(analyze, path)) << path;
  }
  for (const char* path :
       {"", "prompt", "text", "input.", ".input", "input[0]", "arms[]",
        "arms[0", "arms[a]", "arms.name", "client_tag.x", "input.text.x"}) {
    EXPECT_FALSE(testing::IsFieldPath(analyze, path)) << path;
  }
}

// An arm with one rule, to which `rule` is added.
std::string Arm(const std::string& rule) {
  return "arms {name: 'a' disruptions {" + rule + "}}";
}

constexpr char kRule[] = "arms[0].disruptions[0]";

BadInput BadRule(const char* name, const std::string& rule,
                 const std::string& message) {
  return {name, Arm(rule), Code::kInvalidArgument, kRule + message};
}

BadInput Bad(const char* name, const std::string& request,
             const std::string& message) {
  return {name, request, Code::kInvalidArgument, message};
}

std::string Name(const ::testing::TestParamInfo<BadInput>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(
    Model, ConvertBadInput,
    ::testing::Values(
        Bad("empty", "model: ''", "model: must not be empty"),
        Bad("blank", "model: ' \\t'", "model: must not be empty"),
        Bad("slash", "model: 'a/b'",
            "model: invalid name (allowed [A-Za-z0-9._-]{1,128})"),
        Bad("backslash", "model: 'a\\\\b'",
            "model: invalid name (allowed [A-Za-z0-9._-]{1,128})"),
        Bad("dots", "model: '..'",
            "model: invalid name (allowed [A-Za-z0-9._-]{1,128})"),
        Bad("nul", "model: 'a\\000'",
            "model: invalid name (allowed [A-Za-z0-9._-]{1,128})"),
        Bad("control", "model: 'a\\001b'",
            "model: invalid name (allowed [A-Za-z0-9._-]{1,128})"),
        Bad("long", "model: '" + std::string(129, 'a') + "'",
            "model: invalid name (allowed [A-Za-z0-9._-]{1,128})"),
        BadInput{"unknown", "model: 'x'", Code::kNotFound,
                 "model 'x' is not loaded; see ListModels"}),
    Name);

INSTANTIATE_TEST_SUITE_P(
    Input, ConvertBadInput,
    ::testing::Values(
        Bad("none", "input {}",
            "input: exactly one of text, token_ids and chat must be set"),
        Bad("not_utf8", "input {text: 'ab\\377'}",
            "input.text: invalid UTF-8 at byte 2"),
        Bad("surrogate", "input {text: 'a\\355\\240\\200'}",
            "input.text: invalid UTF-8 at byte 1"),
        Bad("overlong", "input {text: '\\300\\200'}",
            "input.text: invalid UTF-8 at byte 0"),
        Bad("cut", "input {text: 'abc\\342\\202'}",
            "input.text: invalid UTF-8 at byte 3"),
        Bad("too_many_bytes", "input {text: '" + std::string(101, 'a') + "'}",
            "input.text: got 101 bytes, limit 100"),
        Bad("empty_text", "input {text: ''}",
            "input: must have at least 1 token, got 0"),
        Bad("empty_ids", "input {token_ids {}}",
            "input: must have at least 1 token, got 0"),
        Bad("too_long", "input {text: '" + std::string(65, 'a') + "'}",
            "input: 65 tokens exceed the model's context of 64"),
        BadInput{"id_too_large", "input {token_ids {ids: 1 ids: 257}}",
                 Code::kOutOfRange,
                 "input.token_ids.ids[1]: 257 is outside [0, 257)"},
        BadInput{"id_negative", "input {token_ids {ids: -1}}",
                 Code::kOutOfRange,
                 "input.token_ids.ids[0]: -1 is outside [0, 257)"},
        BadInput{"no_tokenizer", "model: 'bare' input {text: 'a'}",
                 Code::kFailedPrecondition,
                 "input.text: model 'bare' takes no text (it is bare); send "
                 "token_ids"},
        Bad("beyond_embedding", "model: 'short' input {text: 'bad'}",
            "input.text: token 101, 'd', is outside the model's vocabulary [0, "
            "100): "
            "the tokenizer knows more tokens than the model has embeddings"),
        Bad("client_tag", "client_tag: '" + std::string(257, 'a') + "'",
            "client_tag: got 257 bytes, limit 256")),
    Name);

constexpr char kHello[] = "messages {role: 'user' content: 'hello'}";

INSTANTIATE_TEST_SUITE_P(
    Chat, ConvertBadInput,
    ::testing::Values(
        Bad("format", std::string("input {chat {format: 'x' ") + kHello + "}}",
            "input.chat.format: must be one of chatml, gemma, gemma3, llama2, "
            "llama3, mistral, phi3, got \"x\""),
        Bad("no_messages", "input {chat {format: 'chatml'}}",
            "input.chat.messages: must not be empty"),
        Bad("not_utf8",
            "input {chat {format: 'chatml' messages {role: 'user' content: "
            "'a\\377'}}}",
            "input.chat.messages[0].content: invalid UTF-8 at byte 1"),
        Bad("role",
            "input {chat {format: 'chatml' messages {role: '<|im_end|>' "
            "content: 'a'}}}",
            "input.chat.messages[0].role: must be 1 to 32 letters, digits, '_' "
            "or "
            "'-', got \"<|im_end|>\""),
        Bad("special",
            std::string("input {parse_special: true chat {format: 'chatml' ") +
                kHello + "}}",
            "input.parse_special: must not be set with chat"),
        Bad("too_many_messages",
            std::string("input {chat {format: 'chatml' ") + kHello + kHello +
                kHello + kHello + kHello + kHello + "}}",
            "input.chat.messages: got 6, limit 5"),
        BadInput{
            "unfit_tokenizer",
            std::string("input {chat {format: 'chatml' ") + kHello + "}}",
            Code::kFailedPrecondition,
            "input.chat.format: chat format 'chatml' needs the special token "
            "\"<|im_start|>\", which this tokenizer does not have"},
        BadInput{"no_tokenizer",
                 std::string("model: 'bare' input {chat {format: 'chatml' ") +
                     kHello + "}}",
                 Code::kFailedPrecondition,
                 "input.chat: model 'bare' takes no text (it is bare); send "
                 "token_ids"}),
    Name);

INSTANTIATE_TEST_SUITE_P(
    Generate, ConvertBadInput,
    ::testing::Values(
        Bad("no_length", "generate {}",
            "generate.max_new_tokens: must be at least 1, got 0"),
        Bad("negative_length", "generate {max_new_tokens: -3}",
            "generate.max_new_tokens: must be at least 1, got -3"),
        Bad("over_limit", "generate {max_new_tokens: 41}",
            "generate.max_new_tokens: got 41, limit 40"),
        Bad("huge", "generate {max_new_tokens: 2147483647}",
            "generate.max_new_tokens: got 2147483647, limit 40"),
        Bad("over_context",
            "generate {max_new_tokens: 30} input {text: '" +
                std::string(35, 'a') + "'}",
            "generate.max_new_tokens: 30 and 35 prompt tokens exceed the "
            "model's context of 64"),
        Bad("temperature_nan",
            "generate {max_new_tokens: 1 sampling {temperature: nan}}",
            "generate.sampling.temperature: must be finite and >= 0, got nan"),
        Bad("temperature_inf",
            "generate {max_new_tokens: 1 sampling {temperature: inf}}",
            "generate.sampling.temperature: must be finite and >= 0, got inf"),
        Bad("temperature_negative",
            "generate {max_new_tokens: 1 sampling {temperature: -0.5}}",
            "generate.sampling.temperature: must be finite and >= 0, got -0.5"),
        Bad("top_p_zero", "generate {max_new_tokens: 1 sampling {top_p: 0}}",
            "generate.sampling.top_p: must be in (0, 1], got 0"),
        Bad("top_p_nan", "generate {max_new_tokens: 1 sampling {top_p: nan}}",
            "generate.sampling.top_p: must be in (0, 1], got nan"),
        Bad("top_p_over", "generate {max_new_tokens: 1 sampling {top_p: 1.5}}",
            "generate.sampling.top_p: must be in (0, 1], got 1.5"),
        Bad("top_k", "generate {max_new_tokens: 1 sampling {top_k: -1}}",
            "generate.sampling.top_k: must be >= 0, got -1"),
        Bad("empty_stop", "generate {max_new_tokens: 1 stop_strings: ''}",
            "generate.stop_strings[0]: must be 1 to 1024 bytes, got 0"),
        BadInput{"stop_id", "generate {max_new_tokens: 1 stop_token_ids: 257}",
                 Code::kOutOfRange,
                 "generate.stop_token_ids[0]: 257 is outside [0, 257)"},
        BadInput{"stop_without_tokenizer",
                 "model: 'bare' input {token_ids {ids: 1}} generate "
                 "{max_new_tokens: 1 stop_strings: 'a'}",
                 Code::kFailedPrecondition,
                 "generate.stop_strings: model 'bare' takes no text (it is "
                 "bare); use "
                 "stop_token_ids"}),
    Name);

INSTANTIATE_TEST_SUITE_P(
    Capture, ConvertBadInput,
    ::testing::Values(
        BadInput{"layer", "capture {layers: 0 layers: 1 layers: 2 layers: 3}",
                 Code::kOutOfRange, "capture.layers[3]: 3 is outside [0, 3)"},
        BadInput{"layer_negative", "capture {layers: -1}", Code::kOutOfRange,
                 "capture.layers[0]: -1 is outside [0, 3)"},
        Bad("layer_twice", "capture {layers: 1 layers: 1}",
            "capture.layers[1]: 1 is given twice"),
        BadInput{"head", "capture {heads: 4}", Code::kOutOfRange,
                 "capture.heads[0]: 4 is outside [0, 4)"},
        Bad("head_twice", "capture {heads: 2 heads: 0 heads: 2}",
            "capture.heads[2]: 2 is given twice"),
        BadInput{"position", "capture {positions: 4}", Code::kOutOfRange,
                 "capture.positions[0]: 4 is outside [0, 4)"},
        Bad("too_many", "capture {positions: [0, 1, 2, 3, 4, 5]}",
            "capture.positions: got 6, limit 5"),
        Bad("point_unknown", "capture {points: 99}",
            "capture.points[0]: unknown value 99"),
        Bad("point_zero", "capture {points: HOOK_POINT_UNSPECIFIED}",
            "capture.points[0]: must name a point"),
        Bad("point_twice", "capture {points: HOOK_Q points: HOOK_Q}",
            "capture.points[1]: HOOK_Q is given twice"),
        Bad("form", "capture {form: 9}", "capture.form: unknown value 9"),
        Bad("phase", "capture {phase: 9}", "capture.phase: unknown value 9"),
        Bad("stage", "capture {stage: -1}", "capture.stage: unknown value -1"),
        Bad("dtype", "capture {raw_dtype: 7}",
            "capture.raw_dtype: unknown value 7"),
        Bad("dtype_of_norms", "capture {raw_dtype: F16}",
            "capture.raw_dtype: needs form RAW"),
        Bad("pattern_norm", "capture {points: HOOK_PATTERN positions: 1}",
            "capture.form: HOOK_PATTERN needs RAW"),
        Bad("pattern_everywhere", "capture {points: HOOK_PATTERN form: RAW}",
            "capture.positions: HOOK_PATTERN needs chosen query positions"),
        BadRule("decode_rule", "top_k {k: 1} phase: DECODE",
                ".phase: DECODE acts on generated tokens, but the request has "
                "no generate; expected PREFILL, BOTH or a generate"),
        Bad("second_decode_rule",
            "arms {name: 'a'} arms {name: 'b' disruptions {top_k {k: 1} "
            "layers: "
            "0} disruptions {top_k {k: 1} phase: DECODE layers: 1}}",
            "arms[1].disruptions[1].phase: DECODE acts on generated tokens, "
            "but the request has no generate; expected PREFILL, BOTH or a "
            "generate"),
        Bad("decode", "capture {phase: DECODE}",
            "capture.phase: DECODE and BOTH need generate"),
        Bad("lambda_nan", "statistics {lambda: nan}",
            "statistics.lambda: must be finite and > 0, got nan"),
        Bad("lambda_zero", "statistics {lambda: 0}",
            "statistics.lambda: must be finite and > 0, got 0"),
        Bad("top_n", "statistics {top_n: -1}",
            "statistics.top_n: must be >= 0, got -1"),
        Bad("logits_top_n", "logits {top_n: 0}",
            "logits.top_n: 0 is outside [1, 5]"),
        BadInput{"logits_position", "logits {top_n: 1 positions: 4}",
                 Code::kOutOfRange,
                 "logits.positions[0]: 4 is outside [0, 4)"}),
    Name);

INSTANTIATE_TEST_SUITE_P(
    Rule, ConvertBadInput,
    ::testing::Values(
        BadRule("no_select", "",
                ": exactly one of top_k, bottom_k, random_k, threshold, "
                "explicit must be set"),
        BadRule("k", "top_k {k: 9}", ".top_k.k: 9 exceeds head_dim 8"),
        BadRule("k_negative", "bottom_k {k: -1}",
                ".bottom_k.k: -1 is negative"),
        BadRule("random_k", "random_k {k: 9}",
                ".random_k.k: 9 exceeds head_dim 8"),
        BadRule("exclude_top", "random_k {k: 1 exclude_top: -1}",
                ".random_k.exclude_top: -1 is negative"),
        BadRule("nothing_left", "random_k {k: 5}",
                ".random_k: k 5 plus exclude_top 5 exceeds head_dim 8"),
        BadRule("lambda", "threshold {lambda: -inf}",
                ".threshold.lambda: must be finite and > 0, got -inf"),
        BadRule("no_entries", "explicit {}",
                ".explicit.entries: must not be empty"),
        BadRule("entry_head", "explicit {entries {head: 2 dim: 0}}",
                ".explicit.entries[0].head: 2 is outside [0, 2) of K"),
        BadRule("entry_dim", "explicit {entries {head: 1 dim: 8}}",
                ".explicit.entries[0].dim: 8 is outside [0, 8)"),
        BadRule("entry_twice",
                "explicit {entries {head: 1 dim: 2} entries {head: 1 dim: 2}}",
                ".explicit.entries[1]: (1, 2) is given twice"),
        BadRule("entry_not_in_heads",
                "explicit {entries {head: 1 dim: 2}} heads: 0",
                ".explicit.entries[0].head: 1 is not one of heads"),
        BadRule("entry_per_token",
                "explicit {entries {head: 1 dim: 2}} axis: PER_TOKEN",
                ".explicit: needs axis PER_HEAD, got PER_TOKEN"),
        BadRule("tensor_unknown", "top_k {k: 1} tensors: 7",
                ".tensors[0]: unknown value 7"),
        BadRule("tensor_twice",
                "top_k {k: 1} tensors: QKV_TENSOR_Q tensors: QKV_TENSOR_Q",
                ".tensors[1]: Q is given twice"),
        BadRule("point", "top_k {k: 1} point: 5", ".point: unknown value 5"),
        BadRule("axis", "top_k {k: 1} axis: 5", ".axis: unknown value 5"),
        BadRule("replace", "top_k {k: 1} replace: 5",
                ".replace: unknown value 5"),
        BadRule("kv_grouping", "top_k {k: 1} kv_grouping: 5",
                ".kv_grouping: unknown value 5"),
        BadRule("kv_cache", "top_k {k: 1} kv_cache: 5",
                ".kv_cache: unknown value 5"),
        BadRule("phase", "top_k {k: 1} phase: 5", ".phase: unknown value 5"),
        BadRule("per_dim_mean_per_token",
                "top_k {k: 1} axis: PER_TOKEN replace: PER_DIM_MEAN",
                ".replace: PER_DIM_MEAN needs axis PER_HEAD, got PER_TOKEN"),
        BadRule("factor_nan", "top_k {k: 1} replace: SCALE factor: nan",
                ".factor: must be finite, got nan"),
        BadRule("factor_huge", "top_k {k: 1} replace: SCALE factor: 1e300",
                ".factor: 1e+300 is outside float32"),
        BadRule("factor_unused", "top_k {k: 1} factor: 2",
                ".factor: needs replace SCALE"),
        BadRule("copies_differ", "random_k {k: 1} kv_grouping: QUERY_HEAD",
                ".kv_cache: PERSIST cannot keep copies of K or V that differ "
                "inside a group (kv_grouping QUERY_HEAD); use ATTENTION_ONLY"),
        BadRule("half_a_group", "top_k {k: 1} kv_grouping: QUERY_HEAD heads: 1",
                ".kv_cache: PERSIST cannot keep copies of K or V that differ "
                "inside a group (kv_grouping QUERY_HEAD); use ATTENTION_ONLY"),
        BadRule("layer", "top_k {k: 1} layers: 3",
                ".layers[0]: 3 is outside [0, 3)"),
        BadRule("head", "top_k {k: 1} heads: 1 heads: 2",
                ".heads[1]: 2 is outside [0, 2) of K"),
        BadRule("span_empty", "top_k {k: 1} stat_span {begin: 2 end: 2}",
                ".stat_span: [2, 2) is empty"),
        BadRule("span_backwards", "top_k {k: 1} stat_span {begin: 3 end: 1}",
                ".stat_span: [3, 1) is empty"),
        BadRule("span_end", "top_k {k: 1} stat_span {end: 5}",
                ".stat_span.end: 5 is outside [0, 4]"),
        BadRule("span_begin", "top_k {k: 1} positions {begin: -1}",
                ".positions.begin: -1 is outside [0, 4]")),
    Name);

// "All layers" selects no layer of a model without attention.
const std::string kMamba = "model: 'mamba' input {token_ids {ids: [1, 2]}} ";

INSTANTIATE_TEST_SUITE_P(
    NoAttention, ConvertBadInput,
    ::testing::Values(
        BadInput{"captured_head", kMamba + "capture {heads: 0}",
                 Code::kOutOfRange, "capture.heads[0]: 0 is outside [0, 0)"},
        Bad("rule_head", kMamba + Arm("top_k {} heads: 0"),
            "arms[0].disruptions[0].heads[0]: 0 is outside [0, 0) of Q"),
        Bad("dims",
            kMamba + Arm("random_k {k: 2147483647 exclude_top: 2147483647}"),
            "arms[0].disruptions[0].random_k.k: 2147483647 exceeds head_dim "
            "0")),
    Name);

const std::string kTop = "disruptions {top_k {k: 1}}";

INSTANTIATE_TEST_SUITE_P(
    Arms, ConvertBadInput,
    ::testing::Values(
        Bad("no_name", "arms {}",
            "arms[0].name: must be 1 to 64 letters, digits or `_-.:,=/`, got "
            "''"),
        Bad("odd_name", "arms {name: 'a b\\n'}",
            "arms[0].name: must be 1 to 64 letters, digits or `_-.:,=/`, got "
            "'a b\\n'"),
        Bad("same_name",
            "arms {name: 'clean'} arms {name: 'b'} arms {name: 'clean'}",
            "arms[2].name: 'clean' is used by arms[0]"),
        Bad("too_many",
            "arms {name: 'a'} arms {name: 'b'} arms {name: 'c'} "
            "arms {name: 'd'} arms {name: 'e'}",
            "arms: got 5, limit 4"),
        Bad("too_many_rules",
            "arms {name: 'a' " + kTop + kTop + kTop + kTop + "}",
            "arms[0].disruptions: got 4, limit 3"),
        Bad("overlap", "arms {name: 'a' " + kTop + kTop + "}",
            "arms[0].disruptions[1]: overlaps arms[0].disruptions[0] at layer "
            "0, Q, "
            "head 0"),
        Bad("overlap_of_groupings",
            "arms {name: 'a' disruptions {top_k {k: 1} tensors: QKV_TENSOR_K "
            "heads: 1} disruptions {top_k {k: 1} tensors: QKV_TENSOR_K heads: "
            "2 "
            "heads: 3 layers: 2 kv_grouping: QUERY_HEAD}}",
            "arms[0].disruptions[1]: overlaps arms[0].disruptions[0] at layer "
            "2, K, "
            "head 2"),
        Bad("preset", "arms {name: 'a' preset {name: 'rope_with_llm/gpt5'}}",
            "arms[0].preset.name: unknown preset 'rope_with_llm/gpt5' (one of "
            "rope_with_llm/llama, rope_with_llm/llama/control, "
            "rope_with_llm/mistral, rope_with_llm/mistral/control, "
            "rope_with_llm/qwen2, rope_with_llm/qwen2/control, "
            "rope_with_llm/gemma2, rope_with_llm/gemma2/control)"),
        Bad("preset_too_wide",
            "arms {name: 'a' preset {name: 'rope_with_llm/gemma2'}}",
            "arms[0].preset: rope_with_llm/gemma2.top_k.k: 22 exceeds head_dim "
            "8"),
        BadInput{"variant_unknown", "arms {name: 'a' model: 'x'}",
                 Code::kNotFound,
                 "arms[0].model: model 'x' is not loaded; see ListModels"},
        Bad("variant_name", "arms {name: 'a' model: '/x'}",
            "arms[0].model: invalid name (allowed [A-Za-z0-9._-]{1,128})"),
        Bad("variant_vocabulary", "arms {name: 'a' model: 'other_vocab'}",
            "arms[0].model: 'other_vocab' and 'm' differ in vocabulary"),
        Bad("variant_tokenizer", "arms {name: 'a' model: 'bare'}",
            "arms[0].model: 'bare' and 'm' differ in tokenizer"),
        Bad("variant_layers",
            "model: 'bare' input {token_ids {ids: 1}} "
            "arms {name: 'a' model: 'other_layers'}",
            "arms[0].model: 'other_layers' and 'bare' differ in layers or "
            "heads"),
        Bad("no_baseline", "compare {} arms {name: 'a' " + kTop + "}",
            "compare: there is no undisrupted arm to compare with; add one or "
            "set baseline"),
        Bad("baseline", "compare {baseline: 'x'}",
            "compare.baseline: no arm is named 'x'")),
    Name);

}  // namespace
}  // namespace qk
