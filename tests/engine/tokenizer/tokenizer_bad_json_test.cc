// Tests the messages for bad tokenizer.json and tokenizer_config.json files.
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

using ::qk::testing::TinyJson;
using ::qk::testing::TinyJsonWith;

// TinyJson with `from` replaced by `to`.
struct BadCase {
  const char* name;
  std::string from;
  std::string to;
  std::string expected;
};

std::string Repeat(const std::string& text, int count) {
  std::string repeated;
  for (int i = 0; i < count; ++i) repeated += text;
  return repeated;
}

const BadCase kBadCases[] = {
    {"RootIsArray", TinyJson(), "[]", "tokenizer: must be an object"},
    {"NotJson", "\"version\"", "version",
     "tokenizer: not valid JSON at byte 2"},
    {"NotUtf8", "<s>", "<\xff>", "tokenizer: invalid UTF-8 at byte"},
    {"LoneSurrogate", "{\"a\": 0", "{\"\\ud800\": 0", "lone surrogate"},
    {"TooDeep", "\"pair\": []",
     "\"pair\": " + Repeat("[", 31) + Repeat("]", 31),
     "nested deeper than 32 levels"},
    {"FarTooDeep", "\"pair\": []",
     "\"pair\": " + Repeat("[", 100'000) + Repeat("]", 100'000),
     "nested deeper than 32 levels"},
    {"DuplicateKey", "\"b\": 1", "\"a\": 1", "duplicate key \"a\""},
    {"TrailingBytes", "\"c\"]]}\n}", "\"c\"]]}\n} x", "not valid JSON"},
    {"Version2", "\"1.0\"", "\"2.0\"", "version: must be \"1.0\", got \"2.0\""},
    {"VersionNumber", "\"1.0\"", "1", "version: must be a string, got 1"},

    {"NoModel", "\"model\"", "\"modal\"", "model: missing"},
    {"ModelWordPiece", "\"BPE\"", "\"WordPiece\"",
     "model: unsupported tokenizer model \"WordPiece\""},
    {"ModelUnigram", "\"BPE\"", "\"Unigram\"",
     "model.vocab: must be an array, got an object"},
    {"ModelTypeNumber", "\"BPE\"", "7", "model.type: must be a string, got 7"},
    {"Dropout", "\"dropout\": null", "\"dropout\": 0.1",
     "dropout: must be 0 or null, got 0.1"},
    {"SubwordPrefix", "\"continuing_subword_prefix\": null",
     "\"continuing_subword_prefix\": \"##\"",
     "continuing_subword_prefix: must be empty or null, got \"##\""},
    {"WordSuffix", "\"end_of_word_suffix\": null",
     "\"end_of_word_suffix\": \"</w>\"", "end_of_word_suffix: must be empty"},
    {"ByteFallback", "\"byte_fallback\": false", "\"byte_fallback\": true",
     "model: vocab: byte token \"<0x00>\" is missing, there must be all 256"},
    {"IgnoreMergesString", "\"ignore_merges\": false",
     "\"ignore_merges\": \"yes\"",
     "model.ignore_merges: must be true or false, got \"yes\""},
    {"UnkNotInVocab", "\"unk_token\": null", "\"unk_token\": \"<unk>\"",
     "unk_token: \"<unk>\" is not in the vocabulary"},

    {"NoVocab", "\"vocab\"", "\"vocap\"", "model.vocab: missing"},
    {"VocabIsArray", R"({"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4})", "[]",
     "model.vocab: must be an object, got an array"},
    {"IdNegative", "\"a\": 0", "\"a\": -1",
     "model.vocab.a: id -1 is outside [0, 16777216]"},
    {"IdHuge", "\"a\": 0", "\"a\": 2147483648",
     "model.vocab.a: id 2147483648 is outside [0, 16777216]"},
    {"IdOverInt64", "\"a\": 0", "\"a\": 18446744073709551615",
     "model.vocab.a: must be at most"},
    {"IdFraction", "\"a\": 0", "\"a\": 0.5",
     "model.vocab.a: must be an integer, got 0.5"},
    {"IdString", "\"a\": 0", "\"a\": \"0\"",
     "model.vocab.a: must be an integer, got \"0\""},
    {"IdTwice", "\"b\": 1", "\"b\": 0",
     "vocab: id 0 belongs to \"a\" and \"b\""},
    {"IdSparse", "\"b\": 1", "\"b\": 16777216",
     "vocab: id 16777216 in a vocabulary of 5 tokens"},

    {"NoMerges", "\"merges\"", "\"marges\"", "model.merges: missing"},
    {"MergesIsObject", R"(["a b", ["ab", "c"]])", "{}",
     "model.merges: must be an array, got an object"},
    {"MergeOneToken", "\"a b\"", "\"ab\"",
     "model.merges[0]: must be two tokens and a space, got \"ab\""},
    {"MergeThreeTokens", "\"a b\"", "\"a b c\"",
     "model.merges[0]: must be two tokens and a space, got \"a b c\""},
    {"MergeEmptyPart", "\"a b\"", "\" b\"",
     "model.merges[0]: must be two tokens and a space"},
    {"MergeNumber", "\"a b\"", "17", "model.merges[0]: must be a string"},
    {"MergeArrayOfOne", R"(["ab", "c"])", R"(["ab"])",
     "model.merges[1]: must be a pair, got 1 tokens"},
    {"MergeArrayOfThree", R"(["ab", "c"])", R"(["a", "b", "c"])",
     "model.merges[1]: must be a pair, got 3 tokens"},
    {"MergeArrayOfNumbers", R"(["ab", "c"])", "[1, 2]",
     "model.merges[1][0]: must be a string, got 1"},
    {"MergeUnknownLeft", "\"a b\"", "\"x b\"",
     "model.merges[0]: part \"x\" is not in the vocabulary"},
    {"MergeUnknownRight", "\"a b\"", "\"a x\"",
     "model.merges[0]: part \"x\" is not in the vocabulary"},
    {"MergeUnknownResult", "\"a b\"", "\"b a\"",
     "model.merges[0]: result \"ba\" is not in the vocabulary"},
    {"MergeEscapedInMessage", "\"a b\"", "\"a \\u0000\\n\"",
     "part \"\\000\\n\" is not"},

    {"AddedIsObject", "\"added_tokens\": [", "\"added_tokens\": {}, \"x\": [",
     "added_tokens: must be an array, got an object"},
    {"AddedNoId", "{\"id\": 5", "{\"di\": 5", "added_tokens[0].id: missing"},
    {"AddedIdNegative", "{\"id\": 5", "{\"id\": -5",
     "added_tokens[0].id: must be in [0, 4294967295], got -5"},
    {"AddedContentNull", "\"content\": \"<s>\"", "\"content\": null",
     "added_tokens[0].content: missing"},
    {"AddedTooLong", "\"content\": \"<s>\"",
     absl::StrCat("\"content\": \"", Repeat("x", 513), "\""),
     "added_tokens[0]: content has 513 bytes, limit 512"},
    {"AddedFlagNumber", "\"lstrip\": false", "\"lstrip\": 0",
     "added_tokens[0].lstrip: must be true or false, got 0"},

    {"NormalizerUnknown", "\"normalizer\": null",
     "\"normalizer\": {\"type\": \"BertNormalizer\"}",
     "normalizer: unsupported normalizer \"BertNormalizer\""},
    {"NormalizerInSequence", "\"normalizer\": null",
     "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": "
     "[{\"type\": \"NFC\"}, {\"type\": \"Nfx\"}]}",
     "normalizer.normalizers[1]: unsupported normalizer \"Nfx\""},
    {"NormalizerNoType", "\"normalizer\": null", "\"normalizer\": {}",
     "normalizer.type: missing"},

    {"PreTokenizerNull", "\"pre_tokenizer\"", "\"pre_token\"",
     "decoder: unsupported decoder \"ByteLevel\""},
    {"PreTokenizerUnknown",
     R"("pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false)",
     R"("pre_tokenizer": {"type": "BertPreTokenizer", "add_prefix_space": false)",
     "unsupported pre_tokenizer \"BertPreTokenizer\""},
    {"PreTokenizerPattern", "\"pre_tokenizer\": {",
     R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type":
"Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Isolated"}]}, "x": {)",
     "pattern: unsupported \"&&\" at byte 2 of the pattern"},
    {"PreTokenizerBadPattern", "\"pre_tokenizer\": {",
     R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"},
"behavior": "Isolated"}, "x": {)",
     "pattern: the pattern does not compile: missing closing parenthesis"},
    {"PreTokenizerString", "\"pre_tokenizer\": {",
     R"("pre_tokenizer": {"type": "Split", "pattern": {"String": "."}},
"x": {)",
     "pre_tokenizer.behavior: missing"},
    {"PreTokenizerBehavior", "\"pre_tokenizer\": {",
     R"x("pre_tokenizer": {"type": "Split", "pattern": {"Regex":
"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
"behavior": "Dropped"}, "x": {)x",
     "unsupported pre_tokenizer behavior \"Dropped\""},
    {"PreTokenizerAfterByteLevel", "\"pre_tokenizer\": {",
     R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type":
"ByteLevel"}, {"type": "Digits"}]}, "x": {)",
     "unsupported pre_tokenizer step after ByteLevel"},
    {"PreTokenizerNested", "\"pre_tokenizer\": {",
     R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type":
"Sequence", "pretokenizers": []}]}, "x": {)",
     "unsupported pre_tokenizer \"Sequence\""},
    {"PreTokenizerManySteps", "\"pre_tokenizer\": {",
     "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [" +
         Repeat("0,", 8) + "0]}, \"x\": {",
     "pre_tokenizer.pretokenizers: 9 steps, limit 8"},

    {"DecoderUnknown", "\"decoder\": {\"type\": \"ByteLevel\"}",
     "\"decoder\": {\"type\": \"WordPiece\"}",
     "decoder: unsupported decoder \"WordPiece\""},
    {"PostProcessorUnknown", "\"TemplateProcessing\"", "\"BertProcessing\"",
     "post_processor: unsupported post_processor \"BertProcessing\""},
    {"TemplateTokenUnknown", "{\"SpecialToken\": {\"id\": \"<s>\"",
     "{\"SpecialToken\": {\"id\": \"</s>\"",
     "\"</s>\" is not among special_tokens"},
    {"TemplateIdOutside", "\"ids\": [5]", "\"ids\": [6]",
     "id 6 is outside [0, 6)"},
    {"TemplateIdNegative", "\"ids\": [5]", "\"ids\": [-1]",
     "id -1 is outside [0, 6)"},
    {"TemplateSequenceB", "{\"Sequence\": {\"id\": \"A\"",
     "{\"Sequence\": {\"id\": \"B\"",
     "the template must have the sequence \"A\" once"},
    {"TemplateNoSequence", "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}",
     "{\"SpecialToken\": {\"id\": \"<s>\"}}",
     "the template must have the sequence \"A\" once"},

    {"TruncationStride", "\"truncation\": null",
     "\"truncation\": {\"max_length\": 8, \"stride\": 8}",
     "stride: must be less than max_length 8"},
    {"TruncationStrideNegative", "\"truncation\": null",
     "\"truncation\": {\"max_length\": 8, \"stride\": -1}",
     "stride: must be less than max_length 8 and not negative, got -1"},
    {"TruncationZero", "\"truncation\": null",
     "\"truncation\": {\"max_length\": 0}",
     "truncation.max_length: must be in"},
    {"PaddingFixedZero", "\"padding\": null",
     "\"padding\": {\"strategy\": {\"Fixed\": 0}}",
     "padding.strategy.Fixed: must be in [1,"},
    {"PaddingUnknown", "\"padding\": null",
     "\"padding\": {\"strategy\": \"Longest\"}",
     "unsupported padding \"Longest\""},
};

class BadTokenizerJsonTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadTokenizerJsonTest, IsRefused) {
  const BadCase& bad = GetParam();
  const auto tokenizer = TokenizerFromJson(TinyJsonWith(bad.from, bad.to), {});
  ASSERT_FALSE(tokenizer.ok());
  testing::ExpectError(tokenizer.status(), bad.expected);
}

INSTANTIATE_TEST_SUITE_P(Cases, BadTokenizerJsonTest,
                         ::testing::ValuesIn(kBadCases), [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST(BadTokenizerJsonTest, Empty) {
  testing::ExpectError(TokenizerFromJson("", {}).status(), "tokenizer: empty");
}

TEST(BadTokenizerJsonTest, Over64MiB) {
  const std::string spaces((64 << 20) + 1, ' ');
  testing::ExpectError(TokenizerFromJson(spaces, {}).status(),
                       "tokenizer: 67108865 bytes, limit 67108864");
}

TEST(BadTokenizerJsonTest, NoTokensAtAll) {
  testing::ExpectError(
      TokenizerFromJson(
          R"({"model": {"type": "BPE", "vocab": {}, "merges": []}})", {})
          .status(),
      "vocab: is empty");
}

TEST(BadTokenizerJsonTest, TwoMillionMergesAreTheLimit) {
  const std::string json = TinyJsonWith(
      R"(["a b", ["ab", "c"]])",
      absl::StrCat("[", Repeat("\"a b\",", 2'000'000), "\"a b\"]"));
  testing::ExpectError(TokenizerFromJson(json, {}).status(),
                       "model.merges: 2000001 merges, limit 2000000");
}

TEST(BadTokenizerJsonTest, Config) {
  const auto load = [](const std::string& config) {
    return TokenizerFromJson(TinyJson(), {.config = config}).status();
  };
  EXPECT_TRUE(load("{}").ok());
  EXPECT_TRUE(load(R"({"chat_template": "{{ evil() }}"})").ok());
  testing::ExpectError(load("[]"), "tokenizer_config: must be an object");
  testing::ExpectError(load("{"), "tokenizer_config: not valid JSON");
  testing::ExpectError(load(R"({"bos_token": 1})"),
                       "tokenizer_config: bos_token: must be a string, got 1");
  testing::ExpectError(load(R"({"bos_token": {"content": null}})"),
                       "tokenizer_config: bos_token.content: missing");
}

TEST(BadTokenizerJsonTest, AnyPrefixAndAnyBitFlip) {
  const std::string json = TinyJson();
  testing::TruncateAndFlip(json, json.size(), [](const std::string& bytes) {
    const auto tokenizer = TokenizerFromJson(bytes, {});
    if (tokenizer.ok()) {
      EXPECT_TRUE((*tokenizer)->Encode("abc <s> \xc3\xa9", {}).ok());
    }
    return tokenizer.status();
  });
}

}  // namespace
}  // namespace qk
