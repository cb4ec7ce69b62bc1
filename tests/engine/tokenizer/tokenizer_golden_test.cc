// Compares small tokenizers of each kind with the ids and offsets of the
// `tokenizers` package; tests/goldens/tokenizer/make_goldens.py made the
// goldens. compare.py beside it makes the large comparison.
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/formats/json.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

using ::testing::ElementsAreArray;
using ::testing::TestWithParam;
using ::testing::Values;

struct Case {
  std::string text;
  bool parse_special;
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets;  // begin, end of each token; may be empty
  std::optional<std::string> decoded;
};

std::vector<int64_t> Numbers(const JsonValue& array) {
  std::vector<int64_t> numbers;
  EXPECT_TRUE(array
                  .ForEachElement([&](JsonValue value) {
                    numbers.push_back(value.AsInt64().value());
                    return absl::OkStatus();
                  })
                  .ok());
  return numbers;
}

std::vector<Case> ReadCases(const std::string& family) {
  const std::string json =
      testing::ReadFile(testing::TokenizerPath(family + ".cases.json"));
  const auto document = JsonDocument::Parse("cases", json, {});
  EXPECT_TRUE(document.ok()) << document.status();
  std::vector<Case> cases;
  const auto read = [&](JsonValue value) {
    Case one;
    one.text = std::string(value.GetString("text").value());
    one.parse_special = value.GetBool("parse_special").value();
    for (const int64_t id : Numbers(value.GetArray("ids").value())) {
      one.ids.push_back(static_cast<int32_t>(id));
    }
    const auto offsets = value.Find("offsets");
    if (offsets.has_value()) one.offsets = Numbers(*offsets);
    if (value.Find("decoded").has_value()) {
      one.decoded = std::string(value.GetString("decoded").value());
    }
    cases.push_back(one);
    return absl::OkStatus();
  };
  EXPECT_TRUE(document->root().GetArray("cases")->ForEachElement(read).ok());
  EXPECT_GE(cases.size(), 40u);
  return cases;
}

// `tokenizers` reports offsets of whole characters.
std::vector<int64_t> WidenedOffsets(const std::string& text,
                                    const std::vector<TokenSpan>& tokens) {
  const auto continues = [&](size_t at) {
    return at < text.size() && (text[at] & 0xc0) == 0x80;
  };
  std::vector<int64_t> offsets;
  for (const TokenSpan& token : tokens) {
    size_t begin = token.begin;
    size_t end = token.end;
    while (continues(begin)) --begin;
    while (continues(end)) ++end;
    offsets.insert(offsets.end(),
                   {static_cast<int64_t>(begin), static_cast<int64_t>(end)});
  }
  return offsets;
}

bool IsUnigram(const std::string& family) {
  static const auto* const kFamilies = new std::set<std::string>{
      "t5",        "unigram_bytes", "unigram_spm", "albert",   "unigram_steps",
      "graphemes", "unigram_forms", "spm_unigram", "spm_first"};
  return kFamilies->count(family) > 0;
}

// A lone space in front of the text has no bytes here, but has the next
// character's bytes in `tokenizers`.
bool PutsSpaceInFront(const std::string& family) {
  return family == "prefix" || family == "digit_runs" || family == "llama2" ||
         family == "phi3" || family == "mistral3" || family == "metaspace" ||
         family == "always" || family == "no_bytes" || IsUnigram(family);
}

void ExpectOffsetsOfTokensWithBytes(const Case& one,
                                    const std::vector<TokenSpan>& tokens) {
  const auto offsets = WidenedOffsets(one.text, tokens);
  ASSERT_EQ(offsets.size(), one.offsets.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].begin == tokens[i].end) continue;
    EXPECT_EQ(offsets[2 * i], one.offsets[2 * i]) << "token " << i;
    EXPECT_EQ(offsets[2 * i + 1], one.offsets[2 * i + 1]) << "token " << i;
  }
}

void ExpectCases(const Tokenizer& tokenizer, const std::string& family) {
  for (const Case& one : ReadCases(family)) {
    SCOPED_TRACE(::testing::PrintToString(one.text));
    EncodeOptions options;
    options.parse_special = one.parse_special;
    const auto tokens = testing::EncodeOrDie(tokenizer, one.text, options);
    EXPECT_THAT(testing::Ids(tokens), ElementsAreArray(one.ids));
    if (!one.offsets.empty() && !PutsSpaceInFront(family)) {
      EXPECT_THAT(WidenedOffsets(one.text, tokens),
                  ElementsAreArray(one.offsets));
    }
    if (!one.offsets.empty() && IsUnigram(family)) {
      ExpectOffsetsOfTokensWithBytes(one, tokens);
    }
    if (one.decoded.has_value()) {
      EXPECT_EQ(tokenizer.Decode(one.ids, false).value(), *one.decoded);
    }
  }
}

class TokenizerGoldenTest : public TestWithParam<std::string> {};

TEST_P(TokenizerGoldenTest, EqualsTokenizers) {
  const auto tokenizer = testing::LoadGolden(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  ExpectCases(*tokenizer, GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    Families, TokenizerGoldenTest,
    Values("gpt2", "prefix", "smollm", "digit_runs", "llama3", "qwen2", "flags",
           "unknown", "neox", "opt", "llama2", "mistral3", "phi3", "gemma",
           "metaspace", "always", "no_bytes", "t5", "unigram_bytes",
           "unigram_spm", "albert", "unigram_steps", "unigram_forms",
           "graphemes", "spm_unigram", "spm_first",
           // Patterns of the files' own:
           "tekken", "o200k", "llama3_removed", "qwen35", "deepseek3",
           "deepseek_coder", "nobody", "lines", "literal"),
    [](const auto& info) { return info.param; });

class SentencePieceGoldenTest : public TestWithParam<std::string> {};

// tokenizer.model must give the same as its conversion to tokenizer.json.
TEST_P(SentencePieceGoldenTest, EqualsTokenizers) {
  const auto tokenizer = testing::LoadGoldenModel(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  ExpectCases(*tokenizer, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Families, SentencePieceGoldenTest,
                         Values("llama2", "mistral3", "gemma", "t5",
                                "spm_unigram", "spm_first"),
                         [](const auto& info) { return info.param; });

// OPT's published files must give what `transformers` makes of them.
TEST(VocabAndMergesGoldenTest, EqualsTransformers) {
  const auto file = [](const char* name) {
    return testing::ReadFile(
        testing::TokenizerPath(std::string("opt_files/") + name));
  };
  const auto tokenizer =
      TokenizerFromVocabAndMerges(file("vocab.json"), file("merges.txt"),
                                  {.config = file("tokenizer_config.json")});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectCases(**tokenizer, "opt_files");
  EXPECT_EQ((*tokenizer)->bos_id(), 2);
  EXPECT_THAT((*tokenizer)->stop_ids(), ElementsAreArray({2}));
}

TEST(VocabAndMergesTest, BadFilesAreRefused) {
  const std::string vocab = R"({"a": 0, "b": 1, "ab": 2, "</s>": 3})";
  const std::string merges = "#version: 0.2\na b\n";
  const std::string config =
      R"({"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>"})";
  ASSERT_TRUE(
      TokenizerFromVocabAndMerges(vocab, merges, {.config = config}).ok());
  struct Bad {
    std::string vocab, merges, config, message;
  };
  const Bad bad[] = {
      {"[]", merges, config, "vocab.json: must be an object, got an array"},
      {R"({"a": 0, "b": 1048580})", merges, config,
       "vocab.json: vocab: id 1048580 in a vocabulary of 2 tokens"},
      {R"({"a": 0, "b": 0})", merges, config,
       "vocab.json: vocab: id 0 belongs to \"a\" and \"b\""},
      {R"({"a": -1})", merges, config,
       "vocab.json: a: id -1 is outside [0, 16777216]"},
      {vocab, "#version: 0.2\na b\na c\n", config,
       "merges.txt: line 3: part \"c\" is not in the vocabulary"},
      {vocab, "ab\n", config,
       "merges.txt: line 1: must be two tokens and a space, got \"ab\""},
      {vocab, merges, "",
       "tokenizer_config: missing beside vocab.json and merges.txt"},
      {vocab, merges, "{}", "tokenizer_config: tokenizer_class: missing"},
      {vocab, merges, R"({"tokenizer_class": "RobertaTokenizer"})",
       "tokenizer_config: tokenizer_class: \"RobertaTokenizer\" is not read "
       "from vocab.json and merges.txt (GPT2Tokenizer and Qwen2Tokenizer are); "
       "save a tokenizer.json"},
      {vocab, merges,
       R"({"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": true})",
       "tokenizer_config: add_bos_token: there is no bos_token"},
      {vocab, merges,
       R"({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": 1})",
       "tokenizer_config: add_bos_token: must be true or false, got 1"},
  };
  for (const Bad& one : bad) {
    const auto result = TokenizerFromVocabAndMerges(one.vocab, one.merges,
                                                    {.config = one.config});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(result.status().message()), one.message);
  }
}

class TokenizerRoundTripTest : public TestWithParam<std::string> {};

// Without a normaliser nothing is lost, and the tokens cover the text in order.
TEST_P(TokenizerRoundTripTest, DecodeGivesTheText) {
  const auto tokenizer = testing::LoadGolden(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  for (const Case& one : ReadCases(GetParam())) {
    EncodeOptions options;
    options.parse_special = one.parse_special;
    options.add_special_tokens = false;
    const auto tokens = testing::EncodeOrDie(*tokenizer, one.text, options);
    EXPECT_EQ(tokenizer->Decode(testing::Ids(tokens), true).value(), one.text);
    uint32_t end = 0;
    for (const TokenSpan& token : tokens) {
      EXPECT_EQ(token.begin, end);
      EXPECT_EQ(tokenizer->Piece(token.id),
                one.text.substr(token.begin, token.end - token.begin));
      end = token.end;
    }
    EXPECT_EQ(end, one.text.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerRoundTripTest,
                         Values("gpt2", "smollm", "llama3", "opt"),
                         [](const auto& info) { return info.param; });

class CharacterRoundTripTest : public TestWithParam<std::string> {};

// The decoded text equals the text, except for U+2581, and the tokens cover it
// in order: an inserted space covers nothing.
TEST_P(CharacterRoundTripTest, DecodeGivesTheText) {
  const auto tokenizer = testing::LoadGolden(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  for (const Case& one : ReadCases(GetParam())) {
    EncodeOptions options;
    options.add_special_tokens = false;
    const auto tokens = testing::EncodeOrDie(*tokenizer, one.text, options);
    EXPECT_EQ(tokenizer->Decode(testing::Ids(tokens), true).value(),
              absl::StrReplaceAll(one.text, {{kMetaspace, " "}}));
    uint32_t end = 0;
    for (const TokenSpan& token : tokens) {
      // A token with some bytes of a character covers the whole character.
      EXPECT_LE(token.begin, end);
      EXPECT_GE(token.end, end);
      end = token.end;
    }
    EXPECT_EQ(end, one.text.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Families, CharacterRoundTripTest,
                         Values("llama2", "phi3", "gemma"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qk
