// Encodes text made to be slow: work must grow with its size, not its square.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string>

#include "engine/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "tests/engine/tokenizer/tokenizer_testing.h"

namespace qk {
namespace {

constexpr size_t kMegabyte = 1 << 20;

struct Hostile {
  const char* name;
  std::string unit;
  std::string end;  // after the repeated units
};

const Hostile kHostile[] = {
    {"Letter", "a", ""},
    {"Letters", "ab", ""},
    {"Space", " ", ""},
    {"SpacesBeforeLetter", " ", "a"},
    {"Caret", "^", ""},
    {"Digit", "7", ""},
    {"Newline", "\n", ""},
    {"CarriageReturns", "\r\n", "a"},
    {"SpaceNewline", " \n", " a"},
    {"Apostrophe", "'", ""},
    {"CombiningMark", "\u0301", ""},
    {"MarksToReorder", "\u0301\u0323", ""},
    {"MarkBeforeBase", "\u0323\u0301", "a"},
    {"HangulJamo", "\u1100\u1161\u11a8", ""},
    {"LastCodePoint", "\U0010ffff", ""},
    {"Ideograph", "\u65e5", ""},
    {"SpecialToken", "<|im_start|>", ""},
    {"AlmostSpecialToken", "<|im_start|", ""},
    {"Nul", std::string(1, '\0'), ""},
    {"Metaspace", "\u2581", ""},
    {"LetterSpace", "a ", ""},
    {"ByteToken", "<0x41>", ""},
    {"ByteFallback", "\U0001f9ff", "a"},
};

std::string Text(const Hostile& hostile, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += hostile.unit;
  return text + hostile.end;
}

// Returns processor time, because other processes may delay the thread.
double EncodeSeconds(const Tokenizer& tokenizer, const std::string& text) {
  EncodeOptions options;
  options.parse_special = true;
  const std::clock_t start = std::clock();
  const auto tokens = tokenizer.Encode(text, options);
  const std::clock_t elapsed = std::clock() - start;
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  return static_cast<double>(elapsed) / CLOCKS_PER_SEC;
}

// Other processes can still slow down a run (through shared caches), so the
// fastest of a few runs counts; `enough` ends them.
constexpr int kTries = 8;

double FastestEncode(const Tokenizer& tokenizer, const std::string& text,
                     double enough) {
  double fastest = EncodeSeconds(tokenizer, text);
  for (int tries = 1; tries < kTries && fastest > enough; ++tries) {
    fastest = std::min(fastest, EncodeSeconds(tokenizer, text));
  }
  return fastest;
}

class HostileTextTest : public ::testing::TestWithParam<std::string> {};

// 16 times the text takes 16 times as long, or a little more; a quadratic step
// would take 256 times as long. The limit is between the two, far from both. A
// time too short to measure counts as 5 ms.
TEST_P(HostileTextTest, TimeGrowsWithSize) {
  constexpr size_t kTimes = 16;
  const auto tokenizer = testing::LoadGolden(GetParam());
  for (const Hostile& hostile : kHostile) {
    const double once = std::max(
        0.005, FastestEncode(*tokenizer, Text(hostile, kMegabyte / kTimes), 0));
    const double limit = 4 * kTimes * once;
    const double whole =
        FastestEncode(*tokenizer, Text(hostile, kMegabyte), limit);
    std::printf("%s: a megabyte in %.3f s\n", hostile.name, whole);
    EXPECT_LE(whole, limit) << hostile.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, HostileTextTest,
                         ::testing::Values("smollm", "llama3", "qwen2",
                                           "llama2", "gemma", "metaspace", "t5",
                                           "unigram_bytes", "albert",
                                           "spm_unigram", "o200k", "deepseek3",
                                           "deepseek_coder", "lines"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qk
