#include <string>
#include <vector>

#include "client/qkctl/command.h"
#include "client/qkctl/commands/completion_words.h"
#include "client/qkctl/flags/connection_flags.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/qkctl/qkctl_fake.h"

namespace qk::client {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class CompletionTest : public ::testing::Test {
 protected:
  CompletionTest() {
    connection_.AddTo(ClientOptions(), &timeout_s_, &retries_, &global_);
  }

  std::vector<std::string> Complete(const std::vector<std::string>& words) {
    const Completion completion = CompleteWords(
        words, commands_, global_.texts(), [this](const auto& flags) {
          asked_with_ = flags;
          return std::vector<std::string>{"small", "large"};
        });
    files_ = completion.files;
    std::vector<std::string> found;
    for (const Candidate& candidate : completion.candidates) {
      found.push_back(candidate.word);
    }
    return found;
  }

  FlagSet global_;
  ConnectionFlags connection_;
  std::optional<double> timeout_s_;
  std::optional<int32_t> retries_;
  std::vector<const Command*> commands_ = {&kAnalyzeCommand, &kHealthCommand,
                                           &kModelCommand,   &kModelsCommand,
                                           &kReplayCommand,  &kUserCommand};
  std::vector<std::string> asked_with_ = {"nobody asked"};
  bool files_ = false;
};

TEST_F(CompletionTest, CommandsAndTheirHelp) {
  EXPECT_THAT(Complete({""}), ElementsAre("analyze", "health", "model",
                                          "models", "replay", "user", "help"));
  EXPECT_THAT(Complete({"he"}), ElementsAre("health", "help"));
  EXPECT_THAT(Complete({"help", "he"}), ElementsAre("health"));
  EXPECT_THAT(Complete({"help", "health", ""}), IsEmpty());
  EXPECT_THAT(Complete({"nosuch", ""}), IsEmpty());
  EXPECT_THAT(Complete({"--server", "a:1", "he"}),
              ElementsAre("health", "help"));
  EXPECT_THAT(Complete({"--se"}), ElementsAre("--server"));
}

TEST_F(CompletionTest, Flags) {
  EXPECT_THAT(Complete({"health", "--w"}), ElementsAre("--wait"));
  EXPECT_THAT(Complete({"health", "-"}), Contains("--tls"));
  EXPECT_THAT(Complete({"health", "--wait", "3", "--"}),
              Not(Contains("--wait")));
  EXPECT_THAT(Complete({"health", "--wait=3", "--"}), Not(Contains("--wait")));
  // A flag that may be repeated is offered again.
  EXPECT_THAT(Complete({"analyze", "--arm", "clean", "--ar"}),
              ElementsAre("--arm", "--arms"));
  // What looks like a flag is the value of the one before it.
  EXPECT_THAT(Complete({"health", "--model", "--w", "--w"}),
              ElementsAre("--wait"));
  EXPECT_THAT(Complete({"models", "--", "--"}), IsEmpty());
}

TEST_F(CompletionTest, Values) {
  EXPECT_THAT(Complete({"analyze", "--form", "norm_p"}),
              ElementsAre("norm_per_token"));
  EXPECT_THAT(Complete({"analyze", "--form=norm_p"}),
              ElementsAre("--form=norm_per_token"));
  EXPECT_THAT(Complete({"analyze", "--points", "hook_z,hook_p"}),
              ElementsAre("hook_z,hook_pattern"));
  EXPECT_THAT(Complete({"analyze", "--points=hook_z,hook_p"}),
              ElementsAre("--points=hook_z,hook_pattern"));
  EXPECT_THAT(Complete({"analyze", "--special-tokens", ""}),
              ElementsAre("true", "false"));
  EXPECT_THAT(Complete({"analyze", "--layers", ""}), IsEmpty());
  EXPECT_THAT(Complete({"user", "--role", "o"}), ElementsAre("operator"));
  EXPECT_FALSE(files_);
  EXPECT_THAT(Complete({"analyze", "--out", ""}), IsEmpty());
  EXPECT_TRUE(files_);
  EXPECT_THAT(asked_with_, ElementsAre("nobody asked"));
}

TEST_F(CompletionTest, Arguments) {
  EXPECT_THAT(Complete({"model", ""}),
              ElementsAre("load", "unload", "reload-config"));
  EXPECT_THAT(Complete({"model", "reload-config", ""}), IsEmpty());
  EXPECT_THAT(Complete({"user", "add", ""}), IsEmpty());
  EXPECT_THAT(Complete({"health", ""}), IsEmpty());
  EXPECT_FALSE(files_);
  Complete({"replay", ""});
  EXPECT_TRUE(files_);
  Complete({"replay", "a.json", ""});
  EXPECT_FALSE(files_);
}

TEST_F(CompletionTest, ModelsOfTheServerThatIsMeant) {
  EXPECT_THAT(Complete({"health", "--model", "s"}), ElementsAre("small"));
  EXPECT_THAT(asked_with_, IsEmpty());
  EXPECT_THAT(Complete({"--tls", "health", "--wait", "1", "--server", "b:2",
                        "--model=l"}),
              ElementsAre("--model=large"));
  EXPECT_THAT(asked_with_, ElementsAre("--tls", "--server", "b:2"));
  EXPECT_THAT(Complete({"models", ""}), ElementsAre("small", "large"));
  EXPECT_THAT(Complete({"model", "unload", "l"}), ElementsAre("large"));
}

TEST_F(QkctlFakeTest, CompletionPrintsScriptsAndWords) {
  EXPECT_EQ(Qkctl(kCompletionCommand, {"bash"}), 0);
  EXPECT_THAT(out_, HasSubstr("complete -F _qkctl qkctl\n"));
  EXPECT_EQ(Qkctl(kCompletionCommand, {"zsh"}), 0);
  EXPECT_THAT(out_, StartsWith("#compdef qkctl\n"));
  EXPECT_EQ(Qkctl(kCompletionCommand, {"words", "--", "--tls-s"}), 0);
  EXPECT_THAT(out_, StartsWith("words\n--tls-server-name\tname in the"));
  EXPECT_EQ(Qkctl(kCompletionCommand, {"fish"}), 2);
  EXPECT_THAT(err_, HasSubstr("expected bash, zsh"));
}

}  // namespace
}  // namespace qk::client
