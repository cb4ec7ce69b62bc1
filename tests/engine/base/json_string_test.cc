#include "engine/base/json_string.h"

#include <string>

#include "gtest/gtest.h"

namespace qk {
namespace {

TEST(JsonString, Escapes) {
  EXPECT_EQ(JsonString(""), "\"\"");
  EXPECT_EQ(JsonString("a\"b\\c\n\x01"), "\"a\\\"b\\\\c\\u000a\\u0001\"");
  EXPECT_EQ(JsonString(std::string("\0", 1)), "\"\\u0000\"");
  EXPECT_EQ(JsonString("\x1f \x7f"), "\"\\u001f \x7f\"");
  EXPECT_EQ(JsonString("Zürich €𝄞"), "\"Zürich €𝄞\"");
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
