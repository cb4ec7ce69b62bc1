// Tests what Encode, Decode and the lookups promise, on tokenizers small enough
// to follow by hand.
#include "engine/tokenizer/tokenizer.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

using ::qk::testing::EncodeOrDie;
using ::qk::testing::Flat;
using ::qk::testing::Ids;
using ::qk::testing::LoadGolden;
using ::qk::testing::LoadJson;
using ::qk::testing::TinyJson;
using ::qk::testing::TinyJsonWith;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

EncodeOptions Plain() {
  EncodeOptions options;
  options.add_special_tokens = false;
  return options;
}

EncodeOptions ParseSpecial() {
  EncodeOptions options = Plain();
  options.parse_special = true;
  return options;
}

// Changes TinyJson's added token `<s>`.
std::string AddedTokenJson(const std::string& from, const std::string& to) {
  return TinyJsonWith(from, to);
}

TEST(TokenizerTest, MergesInOrderOfRank) {
  const auto tokenizer = LoadJson(TinyJson());
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "abcab", Plain())),
              ElementsAre(4, 0, 3, 3, 3, 5));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "cba", Plain())),
              ElementsAre(2, 1, 0));
  EXPECT_THAT(EncodeOrDie(*tokenizer, "", Plain()), IsEmpty());
}

TEST(TokenizerTest, LaterMergeOfAPairCounts) {
  const auto tokenizer = LoadJson(TinyJsonWith(
      R"("abc": 4},
  "merges": ["a b", ["ab", "c"]])",
      R"("bc": 4},
  "merges": ["a b", "b c", "a b"])"));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "abc", Plain())), ElementsAre(0, 4));
}

TEST(TokenizerTest, TemplateAndItsOption) {
  const auto tokenizer = LoadJson(TinyJson());
  EXPECT_TRUE(tokenizer->adds_special_tokens_by_default());
  EncodeOptions options;
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "a", options)),
              ElementsAre(5, 0, 0, 0, 0, 1));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "", options)), ElementsAre(5));
  options.add_special_tokens = true;
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "a", options)), ElementsAre(5, 0));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "a", Plain())), ElementsAre(0));
}

TEST(TokenizerTest, TemplateSuffixStandsAtTheEnd) {
  const auto tokenizer =
      LoadJson(TinyJsonWith(R"({"Sequence": {"id": "A", "type_id": 0}}])",
                            R"({"Sequence": {"id": "A", "type_id": 0}},
             {"SpecialToken": {"id": "<s>", "type_id": 0}}])"));
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "ab", {})),
              ElementsAre(5, 0, 0, 3, 0, 2, 5, 2, 2));
}

TEST(TokenizerTest, SpecialTokensInTextOnlyWhenAskedFor) {
  const auto tokenizer = LoadGolden("gpt2");
  const int32_t special = *tokenizer->FindSpecial("<|im_start|>");
  const std::string text = "a<|im_start|>b";
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, text, Plain())),
              ::testing::Not(::testing::Contains(special)));
  const auto tokens = EncodeOrDie(*tokenizer, text, ParseSpecial());
  ASSERT_EQ(tokens.size(), 3u);
  EXPECT_EQ(tokens[1].id, special);
  EXPECT_EQ(tokens[1].begin, 1u);
  EXPECT_EQ(tokens[1].end, 13u);
}

TEST(TokenizerTest, OrdinaryAddedTokensAreAlwaysFound) {
  const auto tokenizer =
      LoadJson(AddedTokenJson("\"special\": true", "\"special\": false"));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "a<s>b", Plain())),
              ElementsAre(0, 5, 1));
  EXPECT_FALSE(tokenizer->IsSpecial(5));
  EXPECT_EQ(tokenizer->FindSpecial("<s>"), 5);
}

// A merge or a whole-word match must not make a special token either.
TEST(TokenizerTest, TextCannotBecomeASpecialTokenByMerges) {
  const std::string special_abc = TinyJsonWith(
      "{\"id\": 5, \"content\": \"<s>\"", "{\"id\": 4, \"content\": \"abc\"");
  std::string json = special_abc;
  for (const auto& [from, to] :
       {std::pair<std::string, std::string>{"\"ids\": [5]", "\"ids\": [4]"},
        {"\"ignore_merges\": false", "\"ignore_merges\": true"}}) {
    json = absl::StrReplaceAll(json, {{from, to}});
    const auto tokenizer = LoadJson(json);
    EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "abc", Plain())),
                ElementsAre(3, 2));
    EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "abc", ParseSpecial())),
                ElementsAre(4));
  }
}

TEST(TokenizerTest, LongestAddedTokenWins) {
  const auto tokenizer = LoadJson(
      TinyJsonWith("\"added_tokens\": [",
                   "\"added_tokens\": [{\"id\": 6, \"content\": \"<s>a\", "
                   "\"special\": true}, "));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "<s>ab<s>b", ParseSpecial())),
              ElementsAre(5, 1, 6, 1));
}

// The ids that tokenizers 0.23.3 gives: what the file states does not count.
TEST(TokenizerTest, AnAddedTokensIdFollowsFromItsContent) {
  const auto find = [](const std::string& list, absl::string_view content) {
    const auto tokenizer = LoadJson(
        TinyJsonWith("\"added_tokens\": [", "\"added_tokens\": [" + list));
    return tokenizer->FindSpecial(content);
  };
  EXPECT_EQ(find(R"({"id": 90, "content": "<y>"},)", "<y>"), 5);
  EXPECT_EQ(find(R"({"id": 90, "content": "<y>"},)", "<s>"), 6);
  EXPECT_EQ(find(R"({"id": 1, "content": "<y>"},)", "<y>"), 5);
  EXPECT_EQ(find(R"({"id": 5, "content": "<s>"},)", "<s>"), 5);
  EXPECT_EQ(find(R"({"id": 9, "content": "ab"},)", "ab"), 3);
  EXPECT_EQ(find(R"({"id": 9, "content": ""},)", "<s>"), 5);
}

// An id that nobody has spells nothing; the others keep theirs.
TEST(TokenizerTest, AVocabularyWithHoles) {
  const auto tokenizer = LoadJson(TinyJsonWith("\"abc\": 4", "\"abc\": 9"));
  EXPECT_EQ(tokenizer->vocab_size(), 10);
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "abc", Plain())), ElementsAre(9));
  EXPECT_EQ(tokenizer->Piece(7), "");
  EXPECT_EQ(tokenizer->Decode({7, 9}, true).value(), "abc");
  // <s> gets the number of the tokens, which a token of this one has.
  testing::ExpectError(
      TokenizerFromJson(TinyJsonWith("\"abc\": 4", "\"abc\": 5"), {}).status(),
      "added_tokens[0]: \"<s>\" gets id 5, which is \"abc\" in the vocabulary");
}

TEST(TokenizerTest, StripTakesTheWhitespace) {
  const auto left =
      LoadJson(AddedTokenJson("\"lstrip\": false", "\"lstrip\": true"));
  EXPECT_THAT(Flat(EncodeOrDie(*left, "a \u2003<s>b", ParseSpecial())),
              ElementsAre(0, 0, 1, 5, 1, 8, 1, 8, 9));
  const auto right =
      LoadJson(AddedTokenJson("\"rstrip\": false", "\"rstrip\": true"));
  EXPECT_THAT(Flat(EncodeOrDie(*right, "a<s>\n\tb", ParseSpecial())),
              ElementsAre(0, 0, 1, 5, 1, 6, 1, 6, 7));
}

TEST(TokenizerTest, SingleWordStandsAlone) {
  const auto tokenizer = LoadJson(
      AddedTokenJson("\"single_word\": false", "\"single_word\": true"));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "<s>", ParseSpecial())),
              ElementsAre(5));
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "a<s>", ParseSpecial())),
              ElementsAre(0));
  // U+0301 and U+24B6 are word characters, U+2014 is not.
  for (const char* before : {"\u0301", "\u24b6"}) {
    EXPECT_THAT(
        EncodeOrDie(*tokenizer, std::string(before) + "<s>", ParseSpecial()),
        IsEmpty());
  }
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "\u2014<s>\u2014", ParseSpecial())),
              ElementsAre(5));
}

// Bytes without a token are left out, as in the package; offsets stay right.
TEST(TokenizerTest, BytesThatNoTokenSpells) {
  const auto tokenizer = LoadJson(TinyJson());
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "?!a?b", Plain())),
              ElementsAre(0, 2, 3, 1, 4, 5));
  const std::string unknown =
      TinyJsonWith("\"unk_token\": null", "\"unk_token\": \"c\"");
  EXPECT_THAT(Flat(EncodeOrDie(*LoadJson(unknown), "?!a", Plain())),
              ElementsAre(2, 0, 1, 2, 1, 2, 0, 2, 3));
  EXPECT_THAT(
      Flat(EncodeOrDie(
          *LoadJson(absl::StrReplaceAll(
              unknown, {{"\"fuse_unk\": false", "\"fuse_unk\": true"}})),
          "?!a", Plain())),
      ElementsAre(2, 0, 2, 0, 2, 3));
}

TEST(TokenizerTest, OffsetsInsideACharacterAreBytes) {
  const auto tokenizer = LoadGolden("gpt2");
  const auto tokens = EncodeOrDie(*tokenizer, "\U0001f9ff", Plain());
  ASSERT_GT(tokens.size(), 1u);
  std::string bytes;
  for (const TokenSpan& token : tokens) {
    EXPECT_EQ(token.begin, bytes.size());
    bytes += tokenizer->Piece(token.id);
    EXPECT_EQ(token.end, bytes.size());
  }
  EXPECT_EQ(bytes, "\U0001f9ff");
}

TEST(TokenizerTest, OffsetsOfComposedTextCoverItsParts) {
  const auto tokenizer = LoadGolden("qwen2");
  const auto composed = EncodeOrDie(*tokenizer, "x\u00e9y", Plain());
  const auto parts = EncodeOrDie(*tokenizer, "xe\u0301y", Plain());
  EXPECT_EQ(Ids(composed), Ids(parts));
  EXPECT_EQ(composed.back().begin, 3u);
  EXPECT_EQ(parts.back().begin, 4u);
  EXPECT_EQ(parts[1].begin, 1u);
  EXPECT_EQ(parts[1].end, 4u);
}

TEST(TokenizerTest, PrefixSpaceHasNoBytes) {
  const auto tokenizer = LoadGolden("prefix");
  const auto plain = EncodeOrDie(*tokenizer, "and", Plain());
  const auto spaced = EncodeOrDie(*tokenizer, " and", Plain());
  EXPECT_EQ(Ids(plain), Ids(spaced));
  EXPECT_EQ(plain.front().begin, 0u);
  EXPECT_EQ(plain.back().end, 3u);
  EXPECT_EQ(spaced.back().end, 4u);
}

TEST(TokenizerTest, InvalidUtf8IsRefused) {
  const auto tokenizer = LoadJson(TinyJson());
  const auto expect_at = [&](const std::string& text, const std::string& at) {
    testing::ExpectError(tokenizer->Encode(text, {}).status(),
                         "text: invalid UTF-8 at byte " + at);
  };
  expect_at("ab\xff", "2");
  expect_at("\xed\xa0\x80", "0");       // a surrogate
  expect_at("a\xf4\x90\x80\x80", "1");  // over U+10FFFF
  expect_at("\xc0\xaf", "0");           // overlong
  expect_at("abc\xe2\x82", "3");        // cut off
  EXPECT_TRUE(tokenizer->Encode("\U0010ffff", {}).ok());
  EXPECT_TRUE(tokenizer->Encode(std::string("a\0b", 3), {}).ok());
}

TEST(TokenizerTest, Decode) {
  const auto tokenizer = LoadJson(TinyJson());
  EXPECT_EQ(tokenizer->Decode({5, 3, 2}, true).value(), "<s>abc");
  EXPECT_EQ(tokenizer->Decode({5, 3, 2}, false).value(), "abc");
  EXPECT_EQ(tokenizer->Decode({}, false).value(), "");
  for (const int32_t id : {-1, 6, INT32_MAX, INT32_MIN}) {
    const auto bad = tokenizer->Decode({0, id}, false);
    EXPECT_EQ(bad.status().code(), absl::StatusCode::kOutOfRange);
    EXPECT_EQ(bad.status().message(),
              absl::StrCat("token_ids[1]: ", id, " is outside [0, 6)"));
  }
}

TEST(TokenizerTest, Lookups) {
  const auto tokenizer = LoadJson(
      TinyJson(), R"({"bos_token": "<s>", "eos_token": {"content": "abc"}})");
  EXPECT_EQ(tokenizer->vocab_size(), 6);
  EXPECT_EQ(tokenizer->bos_id(), 5);
  EXPECT_THAT(tokenizer->stop_ids(), ElementsAre(4));
  EXPECT_TRUE(tokenizer->IsSpecial(5));
  EXPECT_FALSE(tokenizer->IsSpecial(0));
  EXPECT_EQ(tokenizer->FindSpecial("<s>"), 5);
  // The config makes it a special token.
  EXPECT_EQ(tokenizer->FindSpecial("abc"), 4);
  EXPECT_EQ(tokenizer->FindSpecial("ab"), std::nullopt);
  EXPECT_EQ(tokenizer->Piece(5), "<s>");
  EXPECT_EQ(LoadGolden("gpt2")->Piece(220), " ");
  const auto bare = LoadJson(TinyJson());
  EXPECT_EQ(bare->bos_id(), std::nullopt);
  EXPECT_THAT(bare->stop_ids(), IsEmpty());
}

TEST(TokenizerTest, DigestIsOfTheFile) {
  // printf '...' | sha256sum
  const auto tokenizer =
      LoadJson(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},)"
               R"("pre_tokenizer":{"type":"ByteLevel"}})");
  EXPECT_EQ(tokenizer->sha256_hex(),
            "926c3ed67853462d272ae8af51f3cc13a29a8c47ce4b8ee4a8b568b161c53250");
}

TEST(TokenizerTest, FilesWithoutAModelType) {
  EXPECT_NE(LoadJson(TinyJsonWith("\"type\": \"BPE\", ", "")), nullptr);
}

}  // namespace
}  // namespace qk
