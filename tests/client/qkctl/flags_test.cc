#include "client/qkctl/flags/flags.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace qk::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FlagsTest : public ::testing::Test {
 protected:
  FlagsTest() {
    flags_.Section("Things");
    flags_.Add("prompt", "TEXT", "what to say", &prompt_);
    flags_.Add("layers", "LIST", "which", &layers_);
    flags_.Add("arm", "SPEC", "repeatable", &arms_);
    flags_.Add("top-n", "N", "a number", &top_n_);
    flags_.Add("json", "a switch", &json_);
  }

  std::string Error(const std::vector<std::string>& arguments) {
    return std::string(flags_.Parse(arguments).status().message());
  }

  FlagSet flags_;
  std::optional<std::string> prompt_, layers_;
  std::vector<std::string> arms_;
  std::optional<int32_t> top_n_;
  bool json_ = false;
};

TEST_F(FlagsTest, TakesBothSpellings) {
  const auto words = flags_.Parse({"--prompt", "--json", "file", "--top-n=3",
                                   "--arm", "a", "--arm=b=c", "--json"});
  ASSERT_TRUE(words.ok()) << words.status();
  EXPECT_THAT(*words, ElementsAre("file"));
  EXPECT_EQ(prompt_, "--json");
  EXPECT_EQ(top_n_, 3);
  EXPECT_THAT(arms_, ElementsAre("a", "b=c"));
  EXPECT_TRUE(json_);
  EXPECT_FALSE(layers_.has_value());
}

TEST_F(FlagsTest, TwoDashesEndTheFlags) {
  EXPECT_THAT(*flags_.Parse({"--", "--json"}), ElementsAre("--json"));
}

TEST_F(FlagsTest, StopsAtAWord) {
  EXPECT_THAT(*flags_.Parse({"--json", "go", "--other"}, true),
              ElementsAre("go", "--other"));
}

TEST_F(FlagsTest, SaysWhatIsWrong) {
  EXPECT_THAT(Error({"--promt", "x"}),
              HasSubstr("unknown flag '--promt'; did you mean '--prompt'?"));
  EXPECT_THAT(Error({"--zzzzzz"}), HasSubstr("unknown flag '--zzzzzz'"));
  EXPECT_THAT(Error({"--prompt"}), HasSubstr("--prompt needs a value: TEXT"));
  EXPECT_THAT(Error({"--top-n", "x"}),
              HasSubstr("--top-n: 'x' is not a whole number"));
  EXPECT_THAT(Error({"--json=perhaps"}), HasSubstr("--json: 'perhaps'"));
}

TEST_F(FlagsTest, RefusesOneFlagTwice) {
  EXPECT_THAT(Error({"--prompt", "a", "--prompt", "b"}),
              HasSubstr("--prompt is given twice"));
}

TEST_F(FlagsTest, HelpListsFlagsUnderTheirSection) {
  EXPECT_THAT(flags_.Help(), HasSubstr("Things:\n  --prompt TEXT"));
}

}  // namespace
}  // namespace qk::client
