// Text made to be slow: work must grow with its size, not with its square.
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

// Of processor time: encoding takes one thread, and other processes may keep it
// waiting.
double EncodeSeconds(const Tokenizer& tokenizer, const std::string& text) {
  EncodeOptions options;
  options.parse_special = true;
  const std::clock_t start = std::clock();
  const auto tokens = tokenizer.Encode(text, options);
  const std::clock_t elapsed = std::clock() - start;
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  return static_cast<double>(elapsed) / CLOCKS_PER_SEC;
}

// Other processes can still make a run slower (by the caches they share), so
// one good try of a few is enough.
constexpr int kTries = 5;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kLimitSeconds = 20;
#else
constexpr double kLimitSeconds = 1;
#endif

class HostileTextTest : public ::testing::TestWithParam<std::string> {};

TEST_P(HostileTextTest, OneMegabyteInASecond) {
  const auto tokenizer = testing::LoadGolden(GetParam());
  for (const Hostile& hostile : kHostile) {
    const std::string text = Text(hostile, kMegabyte);
    double seconds = EncodeSeconds(*tokenizer, text);
    for (int tries = 1; tries < kTries && seconds > kLimitSeconds; ++tries) {
      seconds = EncodeSeconds(*tokenizer, text);
    }
    EXPECT_LE(seconds, kLimitSeconds) << hostile.name;
  }
}

// Twice the text takes at most 2.5 times as long, and what is too short to
// measure.
TEST_P(HostileTextTest, TimeGrowsWithSize) {
  const auto tokenizer = testing::LoadGolden(GetParam());
  for (const Hostile& hostile : kHostile) {
    const std::string once = Text(hostile, kMegabyte / 4);
    const std::string twice = Text(hostile, kMegabyte / 2);
    double ratio = 10;
    for (int tries = 0; tries < kTries && ratio > 2.5; ++tries) {
      const double least = EncodeSeconds(*tokenizer, once);
      ratio = (EncodeSeconds(*tokenizer, twice) - 0.02) / least;
    }
    EXPECT_LE(ratio, 2.5) << hostile.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, HostileTextTest,
                         ::testing::Values("smollm", "llama3", "qwen2",
                                           "llama2", "gemma", "metaspace"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace qk
