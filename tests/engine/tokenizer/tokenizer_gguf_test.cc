// Tests the tokenizer of a GGUF file, good and bad.
#include <cstdint>
#include <functional>
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
using ::qk::testing::Ids;
using ::qk::testing::Load;
using ::qk::testing::LoadOrDie;
using ::qk::testing::TinyGguf;
using ::qk::testing::Uint32;
using ::testing::ElementsAre;

TEST(TokenizerGgufTest, EncodesAndDecodes) {
  const auto tokenizer = LoadOrDie({});
  ASSERT_NE(tokenizer, nullptr);
  EncodeOptions options;
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "abc<s><user>12", options)),
              ElementsAre(4, 9, 10));
  options.parse_special = true;
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "abc<s><user>12", options)),
              ElementsAre(4, 7, 9, 10));
  EXPECT_EQ(tokenizer->Decode({4, 7, 9}, false).value(), "abc<user>");
  EXPECT_EQ(tokenizer->vocab_size(), 11);
  EXPECT_EQ(tokenizer->bos_id(), 7);
  EXPECT_THAT(tokenizer->stop_ids(), ElementsAre(8));
  EXPECT_FALSE(tokenizer->adds_special_tokens_by_default());
}

// Files that are older than the entry are split as llama.cpp's default.
TEST(TokenizerGgufTest, NoPreTokenizer) {
  TinyGguf older, named;
  older.without = "pre";
  named.pre = "default";
  const auto tokenizer = LoadOrDie(older);
  ASSERT_NE(tokenizer, nullptr);
  for (const char* text : {"12", "ab1c", "abcab"}) {
    EXPECT_EQ(Ids(EncodeOrDie(*tokenizer, text, {})),
              Ids(EncodeOrDie(*LoadOrDie(named), text, {})));
  }
}

// llama.cpp maps a spelling to the last id that has it.
TEST(TokenizerGgufTest, ATokenThatIsThereTwice) {
  TinyGguf gguf;
  gguf.tokens.push_back("c");
  gguf.types.push_back(1);
  const auto tokenizer = LoadOrDie(gguf);
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(Ids(EncodeOrDie(*tokenizer, "cabc", {})), ElementsAre(11, 4));
  EXPECT_EQ(tokenizer->Decode({2, 11}, false).value(), "cc");
}

TEST(TokenizerGgufTest, PreTokenizers) {
  const auto ids = [](const std::string& pre) {
    TinyGguf gguf;
    gguf.pre = pre;
    EncodeOptions options;
    options.add_special_tokens = false;
    return Ids(EncodeOrDie(*LoadOrDie(gguf), "12", options));
  };
  EXPECT_THAT(ids("gpt-2"), ElementsAre(10));
  EXPECT_THAT(ids("llama-bpe"), ElementsAre(10));
  EXPECT_THAT(ids("smollm"), ElementsAre(5, 6));
  EXPECT_THAT(ids("qwen2"), ElementsAre(5, 6));
}

TEST(TokenizerGgufTest, AddBosAndEos) {
  TinyGguf gguf;
  gguf.more.push_back(Bool("tokenizer.ggml.add_bos_token", true));
  gguf.more.push_back(Bool("tokenizer.ggml.add_eos_token", true));
  EXPECT_THAT(Ids(EncodeOrDie(*LoadOrDie(gguf), "a", {})),
              ElementsAre(7, 0, 8));
}

// Llama 3 files do not say whether to add BOS, and the model expects it.
TEST(TokenizerGgufTest, Llama3AddsBosUnlessTheFileSaysOtherwise) {
  TinyGguf gguf;
  gguf.pre = "llama-bpe";
  EXPECT_THAT(Ids(EncodeOrDie(*LoadOrDie(gguf), "a", {})), ElementsAre(7, 0));
  gguf.more.push_back(Bool("tokenizer.ggml.add_bos_token", false));
  EXPECT_THAT(Ids(EncodeOrDie(*LoadOrDie(gguf), "a", {})), ElementsAre(0));
}

TEST(TokenizerGgufTest, EotStopsToo) {
  TinyGguf gguf;
  gguf.more.push_back(Uint32("tokenizer.ggml.eot_token_id", 9));
  EXPECT_THAT(LoadOrDie(gguf)->stop_ids(), ElementsAre(8, 9));
}

TEST(TokenizerGgufTest, DigestIsOfTheTokenizerAlone) {
  const TinyGguf gguf;
  const std::string digest = LoadOrDie(gguf)->sha256_hex();
  EXPECT_EQ(digest.size(), 64u);
  TinyGguf other_order = gguf;
  std::swap(other_order.more[0], other_order.more[1]);
  other_order.more.push_back(Uint32("llama.block_count", 3));
  EXPECT_EQ(LoadOrDie(other_order)->sha256_hex(), digest);
  TinyGguf other = gguf;
  other.more.pop_back();
  EXPECT_NE(LoadOrDie(other)->sha256_hex(), digest);
}

struct BadCase {
  const char* name;
  std::function<void(TinyGguf*)> change;
  std::string expected;
};

const BadCase kBadCases[] = {
    {"NoModel", [](TinyGguf* g) { g->without = "model"; },
     "m.gguf: tokenizer.ggml.model: missing"},
    {"Unigram", [](TinyGguf* g) { g->model = "t5"; },
     "tokenizer.ggml.model: unsupported tokenizer model \"t5\""},
    {"WordPiece", [](TinyGguf* g) { g->model = "bert"; },
     "unsupported tokenizer model \"bert\""},
    {"UnknownPre", [](TinyGguf* g) { g->pre = "mystery\n"; },
     "tokenizer.ggml.pre: unsupported pre_tokenizer pattern \"mystery\\n\""},
    {"NoTokens", [](TinyGguf* g) { g->without = "tokens"; },
     "tokenizer.ggml.tokens: missing"},
    {"EmptyTokens", [](TinyGguf* g) { g->tokens.clear(); },
     "tokenizer.ggml.tokens: is empty"},
    {"TokenNotUtf8", [](TinyGguf* g) { g->tokens[5] = "\xff"; },
     "tokenizer.ggml.tokens: id 5: must be UTF-8, got \"\\377\""},
    {"NoTypes", [](TinyGguf* g) { g->without = "token_type"; },
     "tokenizer.ggml.token_type: missing"},
    {"FewTypes", [](TinyGguf* g) { g->types.pop_back(); },
     "tokenizer.ggml.*: lengths differ: 11 tokens, 10 token_type"},
    {"TypeZero", [](TinyGguf* g) { g->types[2] = 0; },
     "tokenizer.ggml.token_type: id 2: must be 1 to 5, got 0"},
    {"TypeByte", [](TinyGguf* g) { g->types[2] = 6; },
     "tokenizer.ggml.token_type: id 2: must be 1 to 5, got 6"},
    {"EmptyControlToken", [](TinyGguf* g) { g->tokens[7] = ""; },
     "tokenizer.ggml.token_type: id 7: token must have 1 to 512 bytes, got 0"},
    {"LongControlToken",
     [](TinyGguf* g) { g->tokens[7] = std::string(513, 'x'); },
     "id 7: token must have 1 to 512 bytes, got 513"},
    {"NoMerges", [](TinyGguf* g) { g->without = "merges"; },
     "tokenizer.ggml.merges: missing"},
    {"MergeNoSpace", [](TinyGguf* g) { g->merges[1] = "ab"; },
     "tokenizer.ggml.merges: [1]: must be two tokens and a space, got \"ab\""},
    {"MergeUnknownPart", [](TinyGguf* g) { g->merges[1] = "ab z"; },
     "tokenizer.ggml.merges: [1]: part \"z\" is not in the vocabulary"},
    {"MergeUnknownResult", [](TinyGguf* g) { g->merges[1] = "c c"; },
     "tokenizer.ggml.merges: [1]: result \"cc\" is not in the vocabulary"},
    {"BosOutside",
     [](TinyGguf* g) {
       g->more[0] = Uint32("tokenizer.ggml.bos_token_id", 11);
     },
     "tokenizer.ggml.bos_token_id: must be in [0, 10], got 11"},
    {"AddBosWithoutBos",
     [](TinyGguf* g) {
       g->more[0] = Bool("tokenizer.ggml.add_bos_token", true);
     },
     "tokenizer.ggml.add_bos_token: is true, but there is no bos_token_id"},
    {"AddEosWithoutEos",
     [](TinyGguf* g) {
       g->more[1] = Bool("tokenizer.ggml.add_eos_token", true);
     },
     "tokenizer.ggml.add_eos_token: is true, but there is no eos_token_id"},
    {"AddBosNumber",
     [](TinyGguf* g) {
       g->more.push_back(Uint32("tokenizer.ggml.add_bos_token", 1));
     },
     "tokenizer.ggml.add_bos_token: must be"},
};

class BadTokenizerGgufTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadTokenizerGgufTest, IsRefused) {
  TinyGguf gguf;
  GetParam().change(&gguf);
  const auto tokenizer = Load(gguf.Build());
  ASSERT_FALSE(tokenizer.ok());
  testing::ExpectError(tokenizer.status(), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(Cases, BadTokenizerGgufTest,
                         ::testing::ValuesIn(kBadCases), [](const auto& info) {
                           return std::string(info.param.name);
                         });

TEST(BadTokenizerGgufTest, AnyPrefixAndAnyBitFlip) {
  const std::string bytes = TinyGguf().Build();
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
