#include "engine/base/flag_parser.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace qk {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class FlagParserTest : public ::testing::Test {
 protected:
  FlagParserTest() {
    parser_.AddValue("listen", "HOST:PORT", [this](const std::string& value) {
      listen_.push_back(value);
      return absl::OkStatus();
    });
    parser_.AddValue(
        "arm", "SPEC",
        [this](const std::string& value) {
          arms_.push_back(value);
          return value == "bad" ? absl::InvalidArgumentError("is bad")
                                : absl::OkStatus();
        },
        /*repeatable=*/true);
    parser_.AddSwitch("json", &json_);
  }

  std::vector<std::string> Words(const std::vector<std::string>& arguments,
                                 bool stop_at_word = false) {
    const auto words = parser_.Parse(arguments, stop_at_word);
    EXPECT_TRUE(words.ok()) << words.status();
    return words.value_or(std::vector<std::string>{"an error"});
  }
  std::string Error(const std::vector<std::string>& arguments) {
    const auto words = parser_.Parse(arguments, false);
    EXPECT_TRUE(absl::IsInvalidArgument(words.status())) << words.status();
    return std::string(words.status().message());
  }

  FlagParser parser_;
  std::vector<std::string> listen_, arms_;
  bool json_ = false;
};

TEST_F(FlagParserTest, TakesBothSpellings) {
  EXPECT_THAT(Words({"--listen", "a:1", "x", "--arm=b=c", "-", "-z"}),
              ElementsAre("x", "-", "-z"));
  EXPECT_THAT(listen_, ElementsAre("a:1"));
  EXPECT_THAT(arms_, ElementsAre("b=c"));
  EXPECT_FALSE(json_);
}

TEST_F(FlagParserTest, WhateverFollowsIsTheValue) {
  EXPECT_THAT(Words({"--arm", "-1", "--arm", "--json", "--arm=-2.5", "--arm",
                     "--", "--arm=", "--arm", ""}),
              IsEmpty());
  EXPECT_THAT(arms_, ElementsAre("-1", "--json", "-2.5", "--", "", ""));
  EXPECT_FALSE(json_);
}

TEST_F(FlagParserTest, Switches) {
  EXPECT_THAT(Words({"--json", "true"}), ElementsAre("true"));
  EXPECT_TRUE(json_);
}

TEST_F(FlagParserTest, ASwitchMayBeSetOff) {
  json_ = true;
  EXPECT_THAT(Words({"--json=false"}), IsEmpty());
  EXPECT_FALSE(json_);
}

TEST_F(FlagParserTest, WhatEndsTheFlags) {
  EXPECT_THAT(Words({"x", "--", "--json", "--"}),
              ElementsAre("x", "--json", "--"));
  EXPECT_FALSE(json_);
  EXPECT_THAT(Words({"--json", "go", "--other", "--"}, true),
              ElementsAre("go", "--other", "--"));
  EXPECT_TRUE(json_);
}

TEST_F(FlagParserTest, UnknownFlagsGetTheNearestName) {
  EXPECT_EQ(Error({"--lisen", "x"}),
            "unknown flag '--lisen'; did you mean '--listen'?");
  EXPECT_EQ(Error({"--lisen=x"}),
            "unknown flag '--lisen'; did you mean '--listen'?");
  EXPECT_EQ(Error({"--zzzzzzzz"}), "unknown flag '--zzzzzzzz'; see --help");
  EXPECT_EQ(Error({"--=x"}), "unknown flag '--'; see --help");
  EXPECT_EQ(Error({"--\x1b[31mzzzzzzzz"}),
            "unknown flag '--\\x1b[31mzzzzzzzz'; see --help");
}

TEST_F(FlagParserTest, ErrorsNameTheFlag) {
  EXPECT_EQ(Error({"--listen"}), "--listen needs a value: HOST:PORT");
  EXPECT_EQ(Error({"--arm", "good", "--arm", "bad"}), "--arm: is bad");
  EXPECT_EQ(Error({"--json=perhaps"}),
            "--json: 'perhaps' is not true or false");
}

TEST_F(FlagParserTest, OnlyRepeatableFlagsMayComeTwice) {
  EXPECT_THAT(Words({"--arm", "a", "--arm=b"}), IsEmpty());
  EXPECT_THAT(arms_, ElementsAre("a", "b"));
  EXPECT_EQ(Error({"--listen", "a", "--listen", "a"}),
            "--listen is given twice");
  EXPECT_THAT(listen_, ElementsAre("a"));
}

TEST_F(FlagParserTest, ASwitchMayNotComeTwice) {
  EXPECT_EQ(Error({"--json", "--json=false"}), "--json is given twice");
}

}  // namespace
}  // namespace qk
