// A long text has its words many times. Each must become what it becomes alone.
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

std::vector<int32_t> Ids(const Tokenizer& tokenizer, const std::string& text) {
  EncodeOptions options;
  options.add_special_tokens = false;
  const auto tokens = tokenizer.Encode(text, options);
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  std::vector<int32_t> ids;
  uint32_t end = 0;
  for (const TokenSpan& token : *tokens) {
    EXPECT_EQ(token.begin, end);
    end = token.end;
    ids.push_back(token.id);
  }
  EXPECT_EQ(end, text.size());
  return ids;
}

class LongTextTest : public ::testing::TestWithParam<std::string> {};

TEST_P(LongTextTest, EachWordIsWhatItIsAlone) {
  const auto tokenizer = testing::LoadGolden(GetParam());
  // More words than are kept, some of them often, and in two rounds.
  std::string text;
  std::vector<int32_t> want;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 20000; ++i) {
      const std::string words[] = {
          absl::StrCat(" word", std::string(1 + i % 7, 'a' + i % 26),
                       std::string(i / 26 % 5, 'a' + i / 130 % 26)),
          " the", " \u00e9t\u00e9",
          absl::StrCat(" ", std::string(20 + i % 10, 'a' + i % 26)),
          absl::StrCat(" x", std::string(1, 'a' + i % 26),
                       std::string(1, 'a' + i / 26 % 26),
                       std::string(1, 'a' + i / 676 % 26), "q")};
      const std::string& word = words[i % 5];
      text += word;
      if (round > 0) continue;
      const std::vector<int32_t> ids = Ids(*tokenizer, word);
      want.insert(want.end(), ids.begin(), ids.end());
    }
  }
  const std::vector<int32_t> once = want;
  want.insert(want.end(), once.begin(), once.end());
  EXPECT_TRUE(Ids(*tokenizer, text) == want);
}

INSTANTIATE_TEST_SUITE_P(Families, LongTextTest,
                         ::testing::Values("gpt2", "llama3", "qwen2", "neox",
                                           "o200k"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qk
