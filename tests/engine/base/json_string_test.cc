#include "engine/base/json_string.h"

#include <cstdint>
#include <string>

#include "engine/base/utf8.h"
#include "gtest/gtest.h"

namespace qk {
namespace {

TEST(JsonString, Escapes) {
  EXPECT_EQ(JsonString(""), "\"\"");
  EXPECT_EQ(JsonString("a\"b\\c\n\x01"), "\"a\\\"b\\\\c\\u000a\\u0001\"");
  EXPECT_EQ(JsonString(std::string("\0", 1)), "\"\\u0000\"");
  EXPECT_EQ(JsonString("\x1f \x7f"), "\"\\u001f \\u007f\"");
  EXPECT_EQ(JsonString("Zürich €𝄞"), "\"Zürich €𝄞\"");
}

TEST(JsonString, S15_EscapesWhatAViewerMayActOn) {
  // C1: U+009B begins a terminal's control sequence in one character.
  EXPECT_EQ(JsonString("\u0080\u009b\u00a0"), "\"\\u0080\\u009b\u00a0\"");
  // The direction of text, and what is not seen.
  EXPECT_EQ(JsonString("a\u202eb\u2066c\u200fd\u061c"),
            "\"a\\u202eb\\u2066c\\u200fd\\u061c\"");
  EXPECT_EQ(JsonString("\u200b\ufeff\u2028\u00ad"),
            "\"\\u200b\\ufeff\\u2028\\u00ad\"");
  // Beyond the first plane: a tag, and a control of musical notation.
  EXPECT_EQ(JsonString("\U000E0041\U0001D173"),
            "\"\\udb40\\udc41\\ud834\\udd73\"");
}

TEST(Utf8, S15_ControlAndFormatCharacters) {
  EXPECT_EQ(Utf8Character("A"), U'A');
  EXPECT_EQ(Utf8Character("\u00fc"), U'\u00fc');
  EXPECT_EQ(Utf8Character("\u20ac"), U'\u20ac');
  EXPECT_EQ(Utf8Character("\U0001d11e"), U'\U0001d11e');
  for (const char32_t c : {0x20, 0x7e, 0xa0, 0xac, 0xae, 0x2027, 0x202f, 0x205f,
                           0x2070, 0xfffd, 0x10000, 0xdffff, 0xe1000}) {
    EXPECT_FALSE(IsControlOrFormat(c)) << static_cast<uint32_t>(c);
  }
}

TEST(JsonString, RepairsWhatIsNotUtf8) {
  EXPECT_EQ(JsonString("\xff"), "\"\\ufffd\"");
  EXPECT_EQ(JsonString("\xc0\xaf"), "\"\\ufffd\\ufffd\"");  // overlong
  EXPECT_EQ(JsonString("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"");  // D800
  EXPECT_EQ(JsonString("\xe2\x82"), "\"\\ufffd\\ufffd\"");             // cut
}

TEST(JsonString, WritesTheReplacementAsACharacter) {
  EXPECT_EQ(JsonString("\xff"
                       "a\xc3\xa9\"",
                       ReplacementCharacter::kUtf8),
            "\"\xef\xbf\xbd"
            "a\xc3\xa9\\\"\"");
}

}  // namespace
}  // namespace qk
