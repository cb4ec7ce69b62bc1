// Tests the tokenizer of a GGUF file whose model is "llama".
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/tokenizer_gguf_testing.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

using ::qk::testing::Bool;
using ::qk::testing::EncodeOrDie;
using ::qk::testing::Floats;
using ::qk::testing::Ids;
using ::qk::testing::Load;
using ::qk::testing::LoadOrDie;
using ::qk::testing::Text;
using ::qk::testing::TinyGguf;
using ::qk::testing::Uint32;
using ::testing::ElementsAre;

// TinyGguf as SentencePiece: "ab" and "abc" merge by their scores, "12" from
// characters that are tokens; U+2581 is 11.
TinyGguf TinyLlama() {
  TinyGguf gguf;
  gguf.model = "llama";
  gguf.without = "merges";
  gguf.tokens.push_back("\u2581");
  gguf.types.push_back(1);
  gguf.types[8] = 2;
  gguf.more.push_back(Uint32("tokenizer.ggml.unknown_token_id", 8));
  gguf.more.push_back(
      Floats("tokenizer.ggml.scores", {0, 0, 0, -1, -2, 0, 0, 0, 0, 0, -3, 0}));
  return gguf;
}

TEST(TokenizerGgufSpmTest, SentencePiece) {
  const auto tokenizer = LoadOrDie(TinyLlama());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_TRUE(tokenizer->adds_special_tokens_by_default());
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "abc<user>12?!", {})),
              ElementsAre(7, 11, 4, 9, 11, 10, 8));
  EXPECT_EQ(tokenizer->Decode({7, 11, 4, 11, 10}, false).value(), "abc 12");
  EXPECT_TRUE(tokenizer->IsSpecial(8));
  TinyGguf bare = TinyLlama();
  bare.more.push_back(Bool("tokenizer.ggml.add_space_prefix", false));
  bare.more.push_back(Bool("tokenizer.ggml.add_bos_token", false));
  EXPECT_THAT(Ids(EncodeOrDie(*LoadOrDie(bare), "abc", {})), ElementsAre(4));
}

TEST(TokenizerGgufSpmTest, Phi3TokensTakeWhitespace) {
  TinyGguf gguf = TinyLlama();
  gguf.tokens[7] = "<|user|>";
  EncodeOptions options;
  options.parse_special = true;
  options.add_special_tokens = false;
  EXPECT_THAT(Ids(EncodeOrDie(*LoadOrDie(gguf), "<|user|> \nab", options)),
              ElementsAre(7, 11, 11, 8, 3));
  gguf.more.push_back(Text("general.architecture", "phi3"));
  EXPECT_THAT(Ids(EncodeOrDie(*LoadOrDie(gguf), "<|user|> \nab", options)),
              ElementsAre(7, 11, 3));
}

TEST(TokenizerGgufSpmTest, BadSentencePiece) {
  const auto expect = [](const TinyGguf& gguf, const std::string& message) {
    testing::ExpectError(Load(gguf.Build()).status(), message);
  };
  TinyGguf gguf = TinyLlama();
  gguf.more.pop_back();
  expect(gguf, "tokenizer.ggml.scores: missing");
  gguf.more.push_back(Floats("tokenizer.ggml.scores", {0, 0}));
  expect(gguf, "tokenizer.ggml.*: lengths differ: 12 tokens, 2 scores");
  gguf.more.back() =
      Floats("tokenizer.ggml.scores", std::vector<float>(12, 1.0f / 0.0f));
  expect(gguf, "id 0: the score must be finite");
  gguf = TinyLlama();
  gguf.types[2] = 7;
  expect(gguf, "token_type: id 2: must be 1 to 6, got 7");
  gguf.types[2] = 6;
  expect(gguf, "byte token \"<0x00>\" is missing, there must be all 256");
  gguf = TinyLlama();
  gguf.tokens[2] = "<0xZZ>";
  gguf.types[2] = 6;
  expect(gguf, "bad byte token \"<0xZZ>\"");
  gguf = TinyLlama();
  gguf.more.erase(gguf.more.begin() + 2);
  expect(gguf, "there is no unknown token and there are no byte tokens");
}

TEST(TokenizerGgufSpmTest, AnyPrefixAndAnyBitFlip) {
  const std::string bytes = TinyLlama().Build();
  testing::TruncateAndFlip(bytes, bytes.size(), [](const std::string& file) {
    const auto tokenizer = Load(file);
    if (tokenizer.ok()) {
      EXPECT_TRUE((*tokenizer)->Encode("abc 12 <s> \xc3\xa9", {}).ok());
    }
    return tokenizer.status();
  });
}

}  // namespace
}  // namespace qk
