// Tests the log's lines, and that an abort does not lose the last ones.
#include "server/common/log.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/temp_folder.h"

namespace qk {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(LogDeathTest, R30_AnAbortDoesNotLoseTheLastLines) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Log log(LogLevel::kInfo);
        log.KeepLastWords();
        for (int i = 0; i < 2000; ++i) log.Info("line", {{"i", int64_t{i}}});
        log.Error("last_words", {});
        std::abort();
      },
      "last_words");
}

// As systemd's watchdog does it.
TEST(LogDeathTest, R30_AnAbortFromOutsideEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        Log log(LogLevel::kInfo);
        log.KeepLastWords();
        log.Error("last_words", {});
        kill(getpid(), SIGABRT);
        // The signal may be another thread's to take.
        for (;;) pause();
      },
      ::testing::KilledBySignal(SIGABRT), "last_words");
}

TEST(LogTest, R30_LinesOfALevelAreJson) {
  const testing::TempFolder folder;
  const std::string path = folder.path() + "/log";
  const auto log = Log::Create(LogLevel::kWarn, path);
  ASSERT_TRUE(log.ok()) << log.status();
  (*log)->Info("quiet", {});
  (*log)->Warn("loud", {{"text", std::string("a\n\u202e")},
                        {"number", int64_t{7}},
                        {"real", 0.5},
                        {"truth", true}});
  (*log)->Flush();
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_THAT(text.str(), Not(HasSubstr("quiet")));
  EXPECT_THAT(text.str(),
              HasSubstr("\"level\":\"warn\",\"event\":\"loud\",\"text\":"
                        "\"a\\u000a\\u202e\",\"number\":7,\"real\":0.5,"
                        "\"truth\":true}\n"));
  EXPECT_EQ((*log)->dropped(), 0);
}

}  // namespace
}  // namespace qk
