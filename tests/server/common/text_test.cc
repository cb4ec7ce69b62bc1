#include "server/common/text.h"

#include <string>

#include "engine/base/nearest_name.h"
#include "gtest/gtest.h"

namespace qk {
namespace {

TEST(TextTest, EchoEscapesAndCuts) {
  EXPECT_EQ(Echo("plain"), "plain");
  EXPECT_EQ(Echo(std::string("a\0\n\"", 4)), "a\\x00\\n\\\"");
  EXPECT_EQ(Echo(std::string(64, 'a')), std::string(64, 'a'));
  EXPECT_EQ(Echo(std::string(65, 'a')), std::string(64, 'a') + "...");
  EXPECT_LE(Echo(std::string(64, '\xff')).size(), 67u);
}

TEST(TextTest, PrintableEscapesAndCuts) {
  EXPECT_EQ(Printable("expected \"a\""), "expected \"a\"");
  EXPECT_EQ(Printable("a\n\xc3"), "a\\n\\xc3");
  EXPECT_EQ(Printable(std::string(200, 'a')), std::string(200, 'a'));
  EXPECT_EQ(Printable(std::string(201, 'a')), std::string(200, 'a') + "...");
}

TEST(TextTest, HumanBytes) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(int64_t{2} << 30), "2 GiB");
  EXPECT_EQ(HumanBytes(9771050598), "9.1 GiB");
  EXPECT_EQ(HumanBytes(INT64_MAX), "8192 PiB");
}

TEST(TextTest, StripPaths) {
  EXPECT_EQ(StripPaths("/srv/models/a.gguf: not a GGUF file"),
            "a.gguf: not a GGUF file");
  EXPECT_EQ(StripPaths("cannot open '/etc/x' (/tmp/y)"), "cannot open 'x' (y)");
  EXPECT_EQ(StripPaths("rope_with_llm/llama is 5/8"),
            "rope_with_llm/llama is 5/8");
}

TEST(TextTest, NearestName) {
  EXPECT_EQ(NearestName("lisen", {"listen", "threads"}), "listen");
  EXPECT_EQ(NearestName("zzzzzzz", {"listen", "threads"}), "");
  EXPECT_EQ(NearestName(std::string(1 << 20, 'z'), {"listen"}), "");
}

}  // namespace
}  // namespace qk
