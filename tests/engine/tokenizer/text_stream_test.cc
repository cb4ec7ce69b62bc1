#include <string>
#include <vector>

#include "engine/run/generate.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace qk {
namespace {

using ::testing::ElementsAre;

// Returns what each piece releases, and what was held back at the end.
std::vector<std::string> Stream(const std::vector<std::string>& stops,
                                const std::vector<std::string>& pieces) {
  TextStream stream(stops);
  std::vector<std::string> out;
  std::string all;
  for (const std::string& piece : pieces) {
    EXPECT_FALSE(stream.stopped());
    out.push_back(stream.Add(piece));
    all += out.back();
    EXPECT_EQ(stream.text(), all);
  }
  if (!stream.stopped()) {
    out.push_back(stream.Finish());
    all += out.back();
    EXPECT_EQ(stream.text(), all);
  }
  return out;
}

TEST(TextStreamTest, PlainTextPassesAtOnce) {
  EXPECT_THAT(Stream({}, {"The", " city", "", " of"}),
              ElementsAre("The", " city", "", " of", ""));
}

TEST(TextStreamTest, CharactersWaitForTheirLastByte) {
  EXPECT_THAT(Stream({}, {"a\xC3", "\xBC"}), ElementsAre("a", "\xC3\xBC", ""));
  EXPECT_THAT(Stream({}, {"\xE2", "\x82", "\xAC!"}),
              ElementsAre("", "", "\xE2\x82\xAC!", ""));
  EXPECT_THAT(Stream({}, {"\xF0\x9F", "\x98", "\x80"}),
              ElementsAre("", "", "\xF0\x9F\x98\x80", ""));
  // One token has the end of one character and the start of the next.
  EXPECT_THAT(Stream({}, {"\xC3", "\xBC\xC3", "\xB6"}),
              ElementsAre("", "\xC3\xBC", "\xC3\xB6", ""));
}

TEST(TextStreamTest, EverySplitGivesTheSameText) {
  const std::string text = "a\xC3\xBC\xE2\x82\xAC\xF0\x9F\x98\x80z";
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      const std::vector<std::string> none;
      TextStream stream(none);
      std::string out;
      for (const std::string& piece :
           {text.substr(0, i), text.substr(i, j - i), text.substr(j)}) {
        const std::string shown = stream.Add(piece);
        if (!shown.empty()) {  // text begins and ends between characters
          EXPECT_NE(static_cast<unsigned char>(shown[0]) & 0xC0, 0x80);
        }
        out += shown;
      }
      EXPECT_EQ(out + stream.Finish(), text);
    }
  }
}

TEST(TextStreamTest, BytesThatAreNoTextDoNotBlockTheRest) {
  EXPECT_THAT(Stream({}, {"\x80\x80\x80\x80", "a"}),
              ElementsAre("\x80\x80\x80\x80", "a", ""));
  EXPECT_THAT(Stream({}, {"\xE2", "a"}), ElementsAre("",
                                                     "\xE2"
                                                     "a",
                                                     ""));
}

TEST(TextStreamTest, AnUnfinishedCharacterComesAtTheEnd) {
  EXPECT_THAT(Stream({}, {"a\xE2\x82"}), ElementsAre("a", "\xE2\x82"));
}

TEST(TextStreamTest, StopStringInsideOneToken) {
  EXPECT_THAT(Stream({"STOP"}, {"go STOP on"}), ElementsAre("go "));
  EXPECT_THAT(Stream({"STOP"}, {"STOP"}), ElementsAre(""));
}

TEST(TextStreamTest, StopStringAcrossTokens) {
  EXPECT_THAT(Stream({"STOP"}, {"go S", "T", "OP on"}),
              ElementsAre("go ", "", ""));
  EXPECT_THAT(Stream({"\n\n"}, {"a\n", "\nb"}), ElementsAre("a", ""));
}

TEST(TextStreamTest, APrefixThatGoesElsewhereIsReleased) {
  EXPECT_THAT(Stream({"STOP"}, {"a ST", "AR"}), ElementsAre("a ", "STAR", ""));
  EXPECT_THAT(Stream({"STOP"}, {"a STO"}), ElementsAre("a ", "STO"));
  // "aab" against "aaab": the first a is free, the others may begin a match.
  EXPECT_THAT(Stream({"aab"}, {"a", "a", "a", "b"}),
              ElementsAre("", "", "a", ""));
}

TEST(TextStreamTest, TheFirstOfSeveralStopStringsCounts) {
  EXPECT_THAT(Stream({"xyz", "y"}, {"axyz"}), ElementsAre("a"));
  EXPECT_THAT(Stream({"later", "b"}, {"a", "b later"}), ElementsAre("a", ""));
  // The stop string that is complete first wins over a longer candidate.
  EXPECT_THAT(Stream({"abcd", "bc"}, {"ab", "c"}), ElementsAre("", "a"));
}

TEST(TextStreamTest, StopStringsOfSeveralBytesPerCharacter) {
  EXPECT_THAT(Stream({"\xE2\x82\xAC"}, {"5 \xE2", "\x82", "\xAC now"}),
              ElementsAre("5 ", "", ""));
  EXPECT_THAT(Stream({"\xE2\x82\xAC"}, {"5 \xE2\x82", "\xA4 now"}),
              ElementsAre("5 ", "\xE2\x82\xA4 now", ""));
}

}  // namespace
}  // namespace qk
