// Unigram on vocabularies small enough to follow by hand, and hostile ones.
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

using ::qk::testing::EncodeOrDie;
using ::qk::testing::Flat;
using ::qk::testing::Ids;
using ::testing::ElementsAre;

constexpr char kDecoder[] =
    R"("decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}]})";

std::string Json(const std::string& vocab,
                 const std::string& settings = R"("unk_id": 0)",
                 const std::string& members = "") {
  return absl::StrCat(R"({"model": {"type": "Unigram", "vocab": [)", vocab,
                      "], ", settings, "}, ", members, kDecoder, "}");
}

std::unique_ptr<Tokenizer> LoadOrDie(const std::string& json) {
  auto tokenizer = TokenizerFromJson(json, {});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

TEST(UnigramTest, LargestSumWins) {
  const auto tokenizer = LoadOrDie(Json(
      R"(["<unk>", 0], ["a", -1], ["b", -1], ["ab", -1.5], ["bc", -0.25],
         ["c", -3], ["abc", -4])"));
  // a + bc = -1.25 beats ab + c = -4.5 and abc = -4.
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "abc", {})),
              ElementsAre(1, 0, 1, 4, 1, 3));
}

TEST(UnigramTest, FirstOfEqualSumsWins) {
  const auto tokenizer =
      LoadOrDie(Json(R"(["<unk>", 0], ["a", -1], ["aa", -1])"));
  // Going from left to right, a + aa reaches the end before aa + a does.
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "aaa", {})), ElementsAre(1, 2));
}

TEST(UnigramTest, UnknownNeighboursAreOneToken) {
  const auto tokenizer = LoadOrDie(Json(R"(["?", -2], ["a", -1])"));
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "axyaz", {})),
              ElementsAre(1, 0, 1, 0, 1, 3, 1, 3, 4, 0, 4, 5));
}

TEST(UnigramTest, UnknownCharactersMayBeAPieceTogether) {
  // Unknown scores 90, so that x and y alone beat "xy".
  const auto tokenizer = LoadOrDie(Json(R"(["?", 100], ["xy", 101])"));
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "xy", {})), ElementsAre(1, 0, 2));
}

TEST(UnigramTest, NoUnknownTokenIsAnError) {
  const auto tokenizer = LoadOrDie(Json(R"(["a", -1])", R"("unk_id": null)"));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "aa", {})), ElementsAre(0, 0));
  testing::ExpectError(tokenizer->Encode("ab", {}).status(),
                       "text: the tokenizer has no unknown token");
}

TEST(UnigramTest, BytesOfARunOnlyIfAllAreThere) {
  const auto tokenizer =
      LoadOrDie(Json(R"(["?", -9], ["<0x78>", -9], ["<0x79>", -9], ["a", -1])",
                     R"("unk_id": 0, "byte_fallback": true)"));
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "axy", {})),
              ElementsAre(3, 0, 1, 1, 1, 3, 2, 1, 3));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "axz", {})), ElementsAre(3, 0));
}

TEST(UnigramTest, UserTextNeverBecomesASpecialToken) {
  const auto tokenizer = LoadOrDie(Json(
      R"(["?", -9], ["</s>", 0], ["<", -1], ["/s>", -1])", R"("unk_id": 0)",
      R"("added_tokens": [{"id": 1, "content": "</s>",
                                "special": true}], )"));
  EncodeOptions options;
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "</s>", options)), ElementsAre(2, 3));
  options.parse_special = true;
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "</s>", options)), ElementsAre(1));
}

TEST(UnigramTest, LastOfEqualPiecesAndEmptyOnes) {
  const auto tokenizer = LoadOrDie(
      Json(R"(["?", -9], ["a", -1], ["", 5], ["a", -2])", R"("unk_id": 0)",
           R"("added_tokens": [{"id": 4, "content": "<x>",
                                "special": true}], )"));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "a", {})), ElementsAre(3));
  EXPECT_EQ(tokenizer->FindSpecial("<x>"), 4);
}

TEST(UnigramTest, BadModelsAreRefused) {
  const std::pair<std::string, std::string> kBad[] = {
      {Json(""), "model: vocab: is empty"},
      {Json(R"(["a"])"), "must be a piece and its score, got 1 values"},
      {Json(R"(["a", NaN])"), "must be a finite number"},
      {Json(R"(["a", "b"])"), "must be a finite number"},
      {Json(R"(["a", 1])", R"("unk_id": 1)"), "unk_id: must be in [0, 0]"},
      {Json(R"(["a", 1])", R"("unk_id": -1)"), "unk_id: must be in [0, 0]"},
      {Json(absl::StrCat("[\"", std::string(513, 'a'), "\", 1]")),
       "the piece has 513 bytes, limit 512"},
      {Json(R"(["a", 1])", R"("unk_id": 0)",
            R"("pre_tokenizer": {"type": "ByteLevel"}, )"),
       "unsupported tokenizer model \"Unigram\" with a ByteLevel"},
  };
  for (const auto& [json, message] : kBad) {
    testing::ExpectError(TokenizerFromJson(json, {}).status(), message);
  }
}

std::string Unit(uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i)
    bytes.push_back(static_cast<char>(value >> 8 * i));
  return bytes;
}

// A charsmap with one rule, for "a" (0x61): the root's children start at 0.
std::unique_ptr<Tokenizer> WithRule(uint32_t offset, uint32_t value,
                                    const std::string& texts) {
  std::string units;
  for (uint32_t i = 0; i < 128; ++i) {
    uint32_t unit = 0;
    if (i == 'a') unit = offset << 10 | 1 << 8 | 'a';
    if (i == ('a' ^ 1)) unit = 1u << 31 | value;
    units += Unit(unit);
  }
  const std::string map = Unit(units.size()) + units + texts;
  return LoadOrDie(
      Json(R"(["?", -9], ["b", -1], ["c", -1])", R"("unk_id": 0)",
           absl::StrCat(R"("normalizer": {"type": "Precompiled", )",
                        R"("precompiled_charsmap": ")", absl::Base64Escape(map),
                        "\"}, ")));
}

TEST(CharsmapTest, RulesThatPointOutsideAreNone) {
  const std::string texts("\0bc\0\xc3\xa9", 6);
  EXPECT_THAT(Ids(EncodeOrDie(*WithRule(1, 1, texts), "ac", {})),
              ElementsAre(1, 2, 2));
  EXPECT_THAT(Ids(EncodeOrDie(*WithRule(1, 0, texts), "ac", {})),
              ElementsAre(2));
  // Behind the texts, inside a character, and a leaf behind the trie.
  EXPECT_THAT(Ids(EncodeOrDie(*WithRule(1, 7, texts), "ac", {})),
              ElementsAre(0, 2));
  EXPECT_THAT(Ids(EncodeOrDie(*WithRule(1, 5, texts), "ac", {})),
              ElementsAre(0, 2));
  EXPECT_THAT(Ids(EncodeOrDie(*WithRule(1u << 20, 1, texts), "ac", {})),
              ElementsAre(0, 2));
}

TEST(CharsmapTest, FarLongerTextsAreRefused) {
  const auto tokenizer =
      WithRule(1, 1, std::string(1, '\0') + std::string(1 << 20, 'b'));
  testing::ExpectError(tokenizer->Encode("aaaa", {}).status(),
                       "text: the tokenizer's normalizer makes it too long");
}

}  // namespace
}  // namespace qk
