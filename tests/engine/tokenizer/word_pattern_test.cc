// Patterns that PCRE2 runs. That they split as `tokenizers` does is held by the
// goldens; here: what is refused, and how much work a text may cost.
#include "engine/tokenizer/word_pattern.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/pattern_translation.h"
#include "tests/engine/formats/testing.h"

namespace qk {
namespace {

using ::testing::ElementsAre;
using testing::ExpectError;
using ::testing::Pair;

std::vector<std::pair<size_t, size_t>> Matches(absl::string_view pattern,
                                               absl::string_view text) {
  std::vector<std::pair<size_t, size_t>> matches;
  const auto compiled = WordPattern::Create(pattern);
  EXPECT_TRUE(compiled.ok()) << pattern << ": " << compiled.status();
  if (!compiled.ok()) return matches;
  PatternScratch scratch;
  const absl::Status status = (*compiled)->ForEachMatch(
      text, &scratch,
      [&](size_t begin, size_t end) { matches.emplace_back(begin, end); });
  EXPECT_TRUE(status.ok()) << pattern << ": " << status;
  return matches;
}

TEST(WordPatternTest, FindsMatchesFromLeftToRight) {
  EXPECT_THAT(Matches("ab|a", "aabxab"),
              ElementsAre(Pair(0, 1), Pair(1, 3), Pair(4, 6)));
  EXPECT_THAT(Matches("x", "abc"), ElementsAre());
  // An empty match right after a match is none; elsewhere it is one.
  EXPECT_THAT(Matches("b*", "abc"),
              ElementsAre(Pair(0, 0), Pair(1, 2), Pair(3, 3)));
  EXPECT_THAT(Matches("(?=c)", "acc"), ElementsAre(Pair(1, 1), Pair(2, 2)));
  EXPECT_THAT(Matches(R"(\p{L}+)", "é\u4e00 b"),
              ElementsAre(Pair(0, 5), Pair(6, 7)));
}

// A word is first looked for in a part of the text. Words that end at any
// place beside that part's end, and look ahead over it, are the same.
TEST(WordPatternTest, LongWordsAreWhole) {
  for (const size_t size : {254, 255, 256, 257, 511, 512, 513, 5000, 70000}) {
    const std::string word(size, 'a');
    EXPECT_THAT(Matches("a+", word), ElementsAre(Pair(0, size)));
    EXPECT_THAT(Matches("a+(?=b)", word + "b"), ElementsAre(Pair(0, size)));
    EXPECT_THAT(Matches("a+(?!b)", word + "b"), ElementsAre(Pair(0, size - 1)));
    EXPECT_THAT(Matches("a{60}b|c", word + "c"),
                ElementsAre(Pair(size, size + 1)));
    EXPECT_THAT(Matches("(?<=b)c", word + "bc"),
                ElementsAre(Pair(size + 1, size + 2)));
    EXPECT_THAT(Matches("\u00e9", word + "\u00e9"),
                ElementsAre(Pair(size, size + 2)));
  }
}

TEST(WordPatternTest, HostileTextsTakeWorkInProportion) {
  constexpr size_t kSize = 1 << 20;
  const std::string letters(kSize, 'a');
  const std::string spaces(kSize, ' ');
  std::string marks = "e";
  while (marks.size() < kSize) marks += "\u0301";
  const absl::string_view o200k =
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*)"
      R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?)"
      R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,3})"
      R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_THAT(Matches(o200k, letters), ElementsAre(Pair(0, kSize)));
  EXPECT_THAT(Matches(o200k, spaces), ElementsAre(Pair(0, kSize)));
  EXPECT_EQ(Matches(o200k, marks).size(), 1u);
  EXPECT_EQ(Matches(o200k, std::string(kSize, 'A')).size(), 1u);
}

TEST(WordPatternTest, QuadraticAndExponentialWorkIsRefused) {
  const std::string letters(1 << 18, 'a');
  for (const absl::string_view pattern :
       {R"(\p{L}+x|\p{L})", "(a+)+$x|a", "(?:a|aa)+x|a", "(?=.*x)a|a",
        R"((?<!b)\p{L}*\d|.)"}) {
    const auto compiled = WordPattern::Create(pattern);
    ASSERT_TRUE(compiled.ok()) << compiled.status();
    PatternScratch scratch;
    const auto search = [&](absl::string_view text) {
      return (*compiled)->ForEachMatch(text, &scratch, [](size_t, size_t) {});
    };
    ExpectError(
        search(letters),
        "the tokenizer's word pattern takes too much work on this text");
    EXPECT_TRUE(search("aaa b").ok());
  }
}

TEST(WordPatternTest, PatternsShareScratch) {
  const auto words = WordPattern::Create(R"((\w)(\w*))");
  const auto letters = WordPattern::Create("(?=(.))[aeiou]");
  ASSERT_TRUE(words.ok() && letters.ok());
  PatternScratch scratch;
  std::vector<std::string> found;
  const absl::string_view text = "one two";
  const auto visit = [&](size_t begin, size_t end) {
    const absl::string_view word = text.substr(begin, end - begin);
    found.emplace_back(word);
    EXPECT_TRUE((*letters)
                    ->ForEachMatch(word, &scratch,
                                   [&](size_t first, size_t last) {
                                     found.emplace_back(
                                         word.substr(first, last - first));
                                   })
                    .ok());
  };
  EXPECT_TRUE((*words)->ForEachMatch(text, &scratch, visit).ok());
  EXPECT_THAT(found, ElementsAre("one", "o", "e", "two", "o"));
}

struct Refused {
  const char* pattern;
  const char* error;
};

TEST(WordPatternTest, WhatTheEnginesReadDifferentlyIsRefused) {
  for (const auto& [pattern, error] : std::vector<Refused>{
           {"[a[b]]", "unsupported \"[b\" at byte 2 of the pattern"},
           {"[[:alpha:]]", "unsupported \"[:\" at byte 1 of the pattern"},
           {"[a&&b]", "unsupported \"&&\" at byte 2 of the pattern"},
           {"[]a]", "unsupported \"]\" at byte 1 of the pattern"},
           {"[a", "unsupported \"\" at byte 2 of the pattern"},
           {R"([\S])", R"(unsupported "\\S" at byte 1 of the pattern)"},
           {"a{,3}", "unsupported \"{,\" at byte 1 of the pattern"},
           {"a{2}+", "unsupported \"{2}+\" at byte 1 of the pattern"},
           {"a{x}", "unsupported \"{x\" at byte 1 of the pattern"},
           {"(?m)a", "unsupported \"(?m\" at byte 0 of the pattern"},
           {"(?<n>a)", "unsupported \"(?<\" at byte 0 of the pattern"},
           {"(?#x)", "unsupported \"(?#\" at byte 0 of the pattern"},
           {R"(\1)", R"(unsupported "\\1" at byte 0 of the pattern)"},
           {R"(\Ka)", R"(unsupported "\\K" at byte 0 of the pattern)"},
           {R"(\pL)", R"(unsupported "\\pL" at byte 0 of the pattern)"},
           {R"(\xE9)", R"(unsupported "\\xE9" at byte 0 of the pattern)"},
           {R"(\u12)", R"(unsupported "\\u" at byte 0 of the pattern)"},
           {R"(a\)", R"(unsupported "\\" at byte 1 of the pattern)"},
           {R"(\p{Nobody})", "the pattern does not compile: unknown property"},
           {"(a", "the pattern does not compile: missing closing parenthesis"},
           {"*a", "the pattern does not compile: quantifier"}}) {
    ExpectError(WordPattern::Create(pattern).status(), error);
  }
  ExpectError(WordPattern::Create(std::string(20000, 'a')).status(),
              "the pattern has 20000 bytes, limit 16384");
}

}  // namespace
}  // namespace qk
