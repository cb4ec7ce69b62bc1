// Tests tokenizer.model, good and bad, and BPE of characters on vocabularies
// small enough to follow by hand.
#include <cstdint>
#include <functional>
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
using ::testing::ElementsAre;

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) {
    out.push_back(static_cast<char>(value | 0x80));
  }
  out.push_back(static_cast<char>(value));
  return out;
}

std::string Number(int field, uint64_t value) {
  return Varint(field * 8) + Varint(value);
}

std::string Bytes(int field, const std::string& bytes) {
  return Varint(field * 8 + 2) + Varint(bytes.size()) + bytes;
}

struct Piece {
  std::string text;
  float score;
  int type;
};

// Ids: <unk> <s> </s> a b c ab bc abc U+2581 U+2581a <user> xy.
struct TinyModel {
  std::vector<Piece> pieces = {
      {"<unk>", 0, 2}, {"<s>", 0, 3},      {"</s>", 0, 3},     {"a", -10, 1},
      {"b", -11, 1},   {"c", -12, 1},      {"ab", -3, 1},      {"bc", -2, 1},
      {"abc", -4, 1},  {"\u2581", -13, 1}, {"\u2581a", -5, 1}, {"<user>", 0, 4},
      {"xy", -6, 1},
  };
  std::string trainer = Number(3, 2);
  std::string normalizer = Number(4, 0);
  std::string more;

  std::string Build() const {
    std::string out;
    for (const Piece& piece : pieces) {
      out += Bytes(1, Bytes(1, piece.text) + Varint(2 * 8 + 5) +
                          testing::Raw(piece.score) + Number(3, piece.type));
    }
    return out + Bytes(2, trainer) + Bytes(3, normalizer) + more;
  }
};

std::unique_ptr<Tokenizer> LoadOrDie(const TinyModel& model,
                                     const std::string& config = "") {
  auto tokenizer =
      TokenizerFromSentencePiece(model.Build(), {.config = config});
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

EncodeOptions Plain() {
  EncodeOptions options;
  options.add_special_tokens = false;
  return options;
}

TEST(SentencePieceTest, HighestScoreFirst) {
  const auto tokenizer = LoadOrDie({});
  // "bc" beats "ab".
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "xyabc", Plain())),
              ElementsAre(9, 0, 0, 12, 0, 2, 8, 2, 5));
  EXPECT_EQ(tokenizer->Decode({9, 12, 8}, false).value(), "xyabc");
  EXPECT_TRUE(tokenizer->adds_special_tokens_by_default());
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "a", {})), ElementsAre(1, 10));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_THAT(tokenizer->stop_ids(), ElementsAre(2));
  EXPECT_EQ(tokenizer->sha256_hex().size(), 64u);
}

// x and y are not tokens, and yet they merge into "xy".
TEST(SentencePieceTest, CharactersOnlyInsideTokens) {
  const auto tokenizer = LoadOrDie({});
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "bxyxz", Plain())),
              ElementsAre(9, 0, 0, 4, 0, 1, 12, 1, 3, 0, 3, 5));
}

TEST(SentencePieceTest, SpacesArePutInByPartOrAtTheFirstOnly) {
  const auto legacy = LoadOrDie({}, R"({"legacy": true})");
  EXPECT_THAT(Ids(EncodeOrDie(*legacy, "a<user>a", Plain())),
              ElementsAre(10, 11, 10));
  EXPECT_THAT(Ids(EncodeOrDie(*legacy, " a", Plain())), ElementsAre(9, 10));
  const auto first = LoadOrDie({}, R"({"legacy": false})");
  EXPECT_THAT(Ids(EncodeOrDie(*first, "a<user>a", Plain())),
              ElementsAre(10, 11, 3));
  EXPECT_THAT(Ids(EncodeOrDie(*first, " a", Plain())), ElementsAre(10));
  const auto never = LoadOrDie({}, R"({"add_prefix_space": false})");
  EXPECT_THAT(Ids(EncodeOrDie(*never, "a a", Plain())), ElementsAre(3, 10));
}

TEST(SentencePieceTest, TextNeverBecomesASpecialOrAByteToken) {
  TinyModel model;
  model.pieces.push_back({"<", -7, 1});
  model.pieces.push_back({"s>", -8, 1});
  const auto tokenizer = LoadOrDie(model);
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "<s>", Plain())),
              ElementsAre(9, 13, 14));
}

TEST(SentencePieceTest, ByteFallback) {
  TinyModel model;
  const int first = static_cast<int>(model.pieces.size());
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kHex[] = "0123456789ABCDEF";
    model.pieces.push_back(
        {std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">", 0, 6});
  }
  const auto tokenizer = LoadOrDie(model);
  EXPECT_THAT(Flat(EncodeOrDie(*tokenizer, "\u00e9", Plain())),
              ElementsAre(9, 0, 0, first + 0xc3, 0, 1, first + 0xa9, 1, 2));
  EXPECT_EQ(tokenizer->Decode({9, first + 0xc3, first + 0xa9}, false).value(),
            "\u00e9");
  EXPECT_EQ(tokenizer->Piece(first + 0xc3), "\xc3");
  model.pieces[first + 7].text = "<0xZZ>";
  testing::ExpectError(TokenizerFromSentencePiece(model.Build(), {}).status(),
                       "tokenizer.model: bad byte token \"<0xZZ>\"");
}

TEST(SentencePieceTest, Config) {
  const auto load = [](const std::string& config) {
    return TokenizerFromSentencePiece(TinyModel().Build(), {.config = config});
  };
  const auto more = LoadOrDie({}, R"({"added_tokens_decoder": {
      "1": {"content": "<s>", "special": true, "rstrip": true},
      "13": {"content": "<|end|>", "special": true}},
      "eos_token": "<|end|>", "add_eos_token": true, "add_bos_token": false,
      "legacy": true})");
  EXPECT_EQ(more->vocab_size(), 14);
  EXPECT_THAT(Ids(EncodeOrDie(*more, "a", {})), ElementsAre(10, 13));
  EncodeOptions options = Plain();
  options.parse_special = true;
  EXPECT_THAT(Flat(EncodeOrDie(*more, "<s> a", options)),
              ElementsAre(1, 0, 4, 10, 4, 5));
  // A token that is not in the vocabulary gets the next id.
  for (const char* config :
       {R"({"added_tokens_decoder": {"15": {"content": "?"}}})",
        R"({"added_tokens_decoder": {"3": {"content": "?"}}})",
        R"({"bos_token": "?"})"}) {
    EXPECT_EQ(LoadOrDie({}, config)->FindSpecial("?"), 13) << config;
  }
  testing::ExpectError(
      load(R"({"added_tokens_decoder": {"x": {"content": "?"}}})").status(),
      "must be an id, got \"x\"");
  testing::ExpectError(load(R"({"legacy": 1})").status(),
                       "legacy: must be true or false, got 1");
  testing::ExpectError(load("[").status(), "tokenizer_config: not valid JSON");
}

struct BadCase {
  const char* name;
  std::function<void(TinyModel*)> change;
  std::string expected;
};

const BadCase kBadCases[] = {
    {"UnigramUnknownId",
     [](TinyModel* m) { m->trainer = Number(3, 1) + Number(40, 13); },
     "trainer_spec.unk_id: 13 is outside [0, 13)"},
    {"UnigramScore",
     [](TinyModel* m) {
       m->trainer = Number(3, 1);
       m->pieces[4].score = 0.0f / 0.0f;
     },
     "id 4: the score must be finite"},
    {"UnigramCharsmap",
     [](TinyModel* m) {
       m->trainer = Number(3, 1);
       m->normalizer += Bytes(2, "abc");
     },
     "normalizer_spec.precompiled_charsmap: 3 bytes are too few"},
    {"Word", [](TinyModel* m) { m->trainer = Number(3, 3); },
     "unsupported tokenizer model \"Word\""},
    {"UnknownModelType", [](TinyModel* m) { m->trainer = Number(3, 77); },
     "unsupported tokenizer model \"unknown\""},
    {"NegativeModelType", [](TinyModel* m) { m->trainer = Number(3, ~0ull); },
     "unsupported tokenizer model \"unknown\""},
    {"Charsmap", [](TinyModel* m) { m->normalizer += Bytes(2, "abc"); },
     "unsupported normalizer_spec: has rules"},
    {"ExtraWhitespaces", [](TinyModel* m) { m->normalizer = ""; },
     "unsupported normalizer_spec.remove_extra_whitespaces: true"},
    {"NoEscape", [](TinyModel* m) { m->normalizer += Number(5, 0); },
     "unsupported normalizer_spec.escape_whitespaces: false"},
    {"Suffix", [](TinyModel* m) { m->trainer += Number(24, 1); },
     "unsupported trainer_spec.treat_whitespace_as_suffix: true"},
    {"NoPieces", [](TinyModel* m) { m->pieces.clear(); },
     "there are no pieces"},
    {"PieceTwice", [](TinyModel* m) { m->pieces[4].text = "a"; },
     "pieces: \"a\" is there twice"},
    {"PieceEmpty", [](TinyModel* m) { m->pieces[4].text = ""; },
     "pieces[4]: must be UTF-8 and not empty, got \"\""},
    {"PieceNotUtf8", [](TinyModel* m) { m->pieces[4].text = "\xff"; },
     "pieces[4]: must be UTF-8 and not empty, got \"\\377\""},
    {"PieceType", [](TinyModel* m) { m->pieces[4].type = 7; },
     "pieces[4]: type must be 1 to 6, got 7"},
    {"PieceTypeZero", [](TinyModel* m) { m->pieces[4].type = 0; },
     "pieces[4]: type must be 1 to 6, got 0"},
    {"PieceLong",
     [](TinyModel* m) { m->pieces[4].text = std::string(513, 'x'); },
     "id 4: token has 513 bytes, limit 512"},
    {"ControlLong",
     [](TinyModel* m) { m->pieces[2].text = std::string(513, 'x'); },
     "pieces[2]: has 513 bytes, limit 512"},
    {"ScoreNan", [](TinyModel* m) { m->pieces[4].score = 0.0f / 0.0f; },
     "id 4: the score must be finite"},
    {"NoUnknown", [](TinyModel* m) { m->pieces[0].type = 1; },
     "there is no unknown token and there are no byte tokens"},
    {"FewByteTokens",
     [](TinyModel* m) {
       m->pieces[4] = {"<0x00>", 0, 6};
     },
     "byte token \"<0x01>\" is missing, there must be all 256"},
    {"FieldIsNoMessage", [](TinyModel* m) { m->more = Number(1, 5); },
     "ModelProto: field 1 has wire type 0, not 2"},
    {"FieldTooLong", [](TinyModel* m) { m->more = "\x0a\x7f"; },
     "ModelProto: field 1 has 127 bytes, there are 0 at byte"},
    {"LengthOf2To63",
     [](TinyModel* m) { m->more = "\x0a" + Varint(1ull << 63); },
     "field 1 has 9223372036854775808 bytes, there are 0"},
    {"NumberOver64Bits",
     [](TinyModel* m) { m->more = "\x08" + std::string(10, '\xff'); },
     "number over 64 bits"},
    {"Group", [](TinyModel* m) { m->more = "\x0b\x0c"; },
     "unknown wire type 3"},
    {"FieldZero", [](TinyModel* m) { m->more = std::string(2, '\0'); },
     "bad field number 0"},
    {"CutNumber", [](TinyModel* m) { m->more = "\x0d\x01"; },
     "it ends inside a number at byte"},
};

class BadSentencePieceTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadSentencePieceTest, IsRefused) {
  TinyModel model;
  GetParam().change(&model);
  const auto tokenizer = TokenizerFromSentencePiece(model.Build(), {});
  ASSERT_FALSE(tokenizer.ok());
  testing::ExpectError(tokenizer.status(), "tokenizer.model: ");
  testing::ExpectError(tokenizer.status(), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(Cases, BadSentencePieceTest,
                         ::testing::ValuesIn(kBadCases), [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST(BadSentencePieceTest, EmptyAndOver64MiB) {
  testing::ExpectError(TokenizerFromSentencePiece("", {}).status(),
                       "tokenizer.model: there are no pieces");
  testing::ExpectError(
      TokenizerFromSentencePiece(std::string((64 << 20) + 1, 'x'), {}).status(),
      "tokenizer.model: 67108865 bytes, limit 67108864");
}

TEST(BadSentencePieceTest, AnyPrefixAndAnyBitFlip) {
  const std::string bytes = TinyModel().Build();
  testing::TruncateAndFlip(bytes, bytes.size(), [](const std::string& file) {
    const auto tokenizer = TokenizerFromSentencePiece(file, {});
    if (tokenizer.ok()) {
      EXPECT_TRUE((*tokenizer)->Encode("abc xy <s> \xc3\xa9", {}).ok());
    }
    return tokenizer.status();
  });
}

}  // namespace
}  // namespace qk
