// Tests malformed tokenizer.json files of SentencePiece's kind.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

using ::testing::ElementsAre;

// Ids: the 256 byte tokens, then U+2581 a b U+2581a, and <s> = 260.
std::string TinySpm() {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) {
    absl::StrAppendFormat(&bytes, "\"<0x%02X>\": %d, ", byte, byte);
  }
  return absl::StrCat(R"({
"added_tokens": [{"id": 260, "content": "<s>", "special": true}],
"normalizer": {"type": "Sequence", "normalizers": [
  {"type": "Prepend", "prepend": "▁"},
  {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
"pre_tokenizer": null,
"decoder": {"type": "Sequence", "decoders": [
  {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
  {"type": "ByteFallback"}, {"type": "Fuse"},
  {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
"model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true,
  "unk_token": null, "vocab": {)",
                      bytes, R"("▁": 256, "a": 257, "b": 258, "▁a": 259},
  "merges": ["▁ a"]}
})");
}

struct BadCase {
  const char* name;
  std::string from;
  std::string to;
  std::string expected;
};

constexpr char kMetaspaceStep[] =
    R"("pre_tokenizer": {"type": "Metaspace", "replacement": "▁")";

const BadCase kBadCases[] = {
    {"ByteTokenNoHex", "<0x41>", "<0xZZ>",
     "model: vocab: bad byte token \"<0xZZ>\""},
    {"ByteTokenNegative", "<0x41>", "<0x-1>", "bad byte token \"<0x-1>\""},
    {"ByteTokenMissing", "<0x41>", "other",
     "byte token \"<0x41>\" is missing, there must be all 256"},
    {"ByteFallbackOfBytes", "\"pre_tokenizer\": null",
     "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}",
     "unsupported byte_fallback: true with a ByteLevel pre_tokenizer"},
    {"PrependEmpty", R"("prepend": "▁")", R"("prepend": "")",
     "prepend: must have 1 to 16 bytes, got 0"},
    {"PrependLong", R"("prepend": "▁")", R"("prepend": "▁▁▁▁▁▁")",
     "prepend: must have 1 to 16 bytes, got 18"},
    {"ReplaceRegex", R"({"String": " "}, "content": "▁")",
     R"({"Regex": "(a+"}, "content": "▁")",
     "pattern: the pattern does not compile"},
    {"ReplaceNothing", R"({"String": " "}, "content": "▁")",
     R"({"String": ""}, "content": "▁")", "String: must have 1 to 16 bytes"},
    {"PrecompiledEmpty", R"({"type": "Prepend", "prepend": "▁"})",
     R"({"type": "Precompiled", "precompiled_charsmap": ""})",
     "precompiled_charsmap: 0 bytes are too few for its trie of 0 units"},
    {"PrecompiledShort", R"({"type": "Prepend", "prepend": "▁"})",
     R"({"type": "Precompiled", "precompiled_charsmap": "CAAAAAAAAAA="})",
     "precompiled_charsmap: 8 bytes are too few for its trie of 2 units"},
    {"PrecompiledNotUtf8", R"({"type": "Prepend", "prepend": "▁"})",
     R"({"type": "Precompiled", "precompiled_charsmap": "AAAAAP8="})",
     "precompiled_charsmap: its texts are not UTF-8"},
    {"PrecompiledNotBase64", R"({"type": "Prepend", "prepend": "▁"})",
     R"({"type": "Precompiled", "precompiled_charsmap": "?"})",
     "precompiled_charsmap: must be base64"},
    {"StripWithoutSide", R"({"type": "Prepend", "prepend": "▁"})",
     R"({"type": "Strip", "strip_left": true})", "strip_right: missing"},
    {"NoDecoder", "\"decoder\"", "\"decoda\"",
     "unsupported decoder: there must be one"},
    {"DecoderOfBytes", "{\"type\": \"ByteFallback\"}",
     "{\"type\": \"ByteLevel\"}", "unsupported decoder \"ByteLevel\""},
    {"StripRight", "\"stop\": 0", "\"stop\": 17", "stop: must be"},
    {"StripMuch", "\"start\": 1", "\"start\": 17", "start: must be in [0, 16]"},
    {"StripNothing", R"("Strip", "content": " ")", R"("Strip", "content": "")",
     "content: must have 1 to 16 bytes, got 0"},
    {"SplitBehavior", "\"pre_tokenizer\": null",
     R"("pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
"behavior": "Dropped"})",
     "unsupported pre_tokenizer behavior \"Dropped\""},
    {"MetaspaceReplacement", "\"pre_tokenizer\": null",
     R"("pre_tokenizer": {"type": "Metaspace", "replacement": "_"})",
     "unsupported replacement \"_\""},
    {"MetaspaceScheme", "\"pre_tokenizer\": null",
     absl::StrCat(kMetaspaceStep, ", \"prepend_scheme\": \"last\"}"),
     "unsupported prepend_scheme \"last\""},
    {"MetaspaceContradiction", "\"pre_tokenizer\": null",
     absl::StrCat(kMetaspaceStep,
                  ", \"prepend_scheme\": \"first\", \"add_prefix_space\": "
                  "false}"),
     "add_prefix_space: false does not go with prepend_scheme \"first\""},
    {"MetaspaceThenMore", "\"pre_tokenizer\": null",
     R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [
{"type": "Metaspace", "replacement": "▁"}, {"type": "ByteLevel"}]})",
     "unsupported pre_tokenizer step after Metaspace"},
};

class BadSpmJsonTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadSpmJsonTest, IsRefused) {
  const BadCase& bad = GetParam();
  const std::string good = TinySpm();
  const std::string json = absl::StrReplaceAll(good, {{bad.from, bad.to}});
  ASSERT_NE(json, good);
  const auto tokenizer = TokenizerFromJson(json, {});
  ASSERT_FALSE(tokenizer.ok());
  testing::ExpectError(tokenizer.status(), bad.expected);
}

INSTANTIATE_TEST_SUITE_P(Cases, BadSpmJsonTest, ::testing::ValuesIn(kBadCases),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST(SpmJsonTest, EncodesAndDecodes) {
  const auto tokenizer = testing::LoadJson(TinySpm());
  EXPECT_THAT(
      testing::Flat(testing::EncodeOrDie(*tokenizer, "a b\u00e9")),
      ElementsAre(259, 0, 1, 256, 1, 2, 258, 2, 3, 0xc3, 3, 4, 0xa9, 4, 5));
  EXPECT_EQ(tokenizer->Decode({259, 256, 258, 0xc3}, false).value(), "a b\xc3");
  EXPECT_EQ(tokenizer->Decode({260, 259}, true).value(), "<s> a");
  EXPECT_EQ(tokenizer->Decode({260, 259}, false).value(), "a");
}

// Special tokens are recognised at the given places, and only there.
TEST(SpmJsonTest, EncodeAround) {
  const auto tokenizer = testing::LoadJson(TinySpm());
  const auto tokens = tokenizer->EncodeAround("a<s>a<s>", {{260, 1, 4}});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const auto flat = testing::Flat(*tokens);
  EXPECT_THAT(std::vector<int64_t>(flat.begin(), flat.begin() + 12),
              ElementsAre(259, 0, 1, 260, 1, 4, 259, 4, 5, '<', 5, 6));
}

}  // namespace
}  // namespace qk
