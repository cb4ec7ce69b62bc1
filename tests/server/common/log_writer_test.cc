// Tests that a log never holds up whoever logs.
#include "server/common/log_writer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/temp_folder.h"

namespace qk {
namespace {

using ::testing::HasSubstr;
using testing::TempFolder;

std::string LossLine(int64_t lines) {
  return absl::StrCat("lost ", lines, "\n");
}

std::string FailureLine(const absl::Status& status) {
  return absl::StrCat("failed ", status.message(), "\n");
}

std::string ContentOf(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class Pipe {
 public:
  Pipe() {
    signal(SIGPIPE, SIG_IGN);
    EXPECT_EQ(pipe(ends_), 0);
  }
  ~Pipe() {
    CloseReader();
    close(ends_[1]);
  }
  int writer() const { return ends_[1]; }
  void CloseReader() {
    if (ends_[0] >= 0) close(ends_[0]);
    ends_[0] = -1;
  }
  // Reads until the text ends with `end`.
  std::string ReadUntil(const std::string& end) {
    std::string text;
    std::string buffer(65536, '\0');
    while (!absl::EndsWith(text, end)) {
      const ssize_t count = read(ends_[0], buffer.data(), buffer.size());
      if (count <= 0) break;
      text.append(buffer, 0, static_cast<size_t>(count));
    }
    return text;
  }

 private:
  int ends_[2];
};

// Writes lines of 1,000 bytes until some are lost; returns how many.
int64_t Overflow(LogWriter* writer) {
  const std::string line(999, 'x');
  int64_t lines = 0;
  while (writer->dropped() < 7) {
    writer->Write(line + "\n");
    ++lines;
  }
  return lines;
}

TEST(LogWriterTest, R30_LinesComeInOrderAndFlushWaitsForThem) {
  Pipe pipe;
  LogWriter writer(pipe.writer(), LossLine);
  for (int i = 0; i < 100; ++i) writer.Write(absl::StrCat(i, "\n"));
  EXPECT_TRUE(writer.Flush());
  std::string expected;
  for (int i = 0; i < 100; ++i) absl::StrAppend(&expected, i, "\n");
  EXPECT_EQ(pipe.ReadUntil("99\n"), expected);
  EXPECT_EQ(writer.dropped(), 0);
}

TEST(LogWriterTest, R30_AFullPipeHoldsNobodyAndLossesAreSaid) {
  Pipe pipe;
  LogWriter writer(pipe.writer(), LossLine);
  // A write that waited would never return: nobody reads.
  const int64_t lines = Overflow(&writer);
  EXPECT_GE(lines * 1000, LogWriter::kMaxWaiting);
  EXPECT_LE(lines * 1000, LogWriter::kMaxWaiting + (1 << 20));
  EXPECT_FALSE(writer.Flush());
  const int64_t lost = writer.dropped();
  std::string text;
  std::thread reader([&] { text = pipe.ReadUntil("end\n"); });
  while (!writer.Flush()) {
  }
  writer.Write("end\n");
  reader.join();
  int64_t whole = 0, said = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    int64_t count = 0;
    if (line.size() == 999) ++whole;
    if (line.substr(0, 5) == "lost " &&
        absl::SimpleAtoi(line.substr(5), &count)) {
      said += count;
    }
  }
  EXPECT_EQ(said, lost);
  EXPECT_EQ(whole + lost, lines);
  EXPECT_EQ(writer.dropped(), lost);
}

TEST(LogWriterTest, R30_TheEndWaitsForNobody) {
  // The writer's thread is left to itself, so its descriptor stays.
  static Pipe& pipe = *new Pipe;
  {
    LogWriter writer(pipe.writer(), LossLine);
    Overflow(&writer);
  }  // hangs here if it waits for a reader
  pipe.CloseReader();
}

TEST(LogWriterTest, R30_FullDisksAndGoneReadersAreCounted) {
  const int full = open("/dev/full", O_WRONLY);
  ASSERT_GE(full, 0);
  {
    LogWriter writer(full, LossLine);
    writer.Write("a\n");
    writer.Write("b\n");
    EXPECT_TRUE(writer.Flush());
    EXPECT_EQ(writer.dropped(), 2);
  }
  close(full);
  Pipe pipe;
  pipe.CloseReader();
  LogWriter writer(pipe.writer(), LossLine);
  writer.Write("a\n");
  EXPECT_TRUE(writer.Flush());
  EXPECT_EQ(writer.dropped(), 1);
}

// What a file may hold: the test's soft limit stands for a full disk.
TEST(LogWriterTest, R30_ALineThatWasCutOffDoesNotSpoilTheNext) {
  const TempFolder folder;
  const std::string path = folder.path() + "/log";
  signal(SIGXFSZ, SIG_IGN);
  auto writer = LogWriter::Create(path, LossLine);
  ASSERT_TRUE(writer.ok()) << writer.status();
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {10, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  (*writer)->Write("0123456\n");
  (*writer)->Write("abcdefg\n");
  EXPECT_TRUE((*writer)->Flush());
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(ContentOf(path), "0123456\nab");
  (*writer)->Write("next\n");
  EXPECT_TRUE((*writer)->Flush());
  EXPECT_EQ(ContentOf(path), "0123456\nab\nlost 1\nnext\n");
  EXPECT_EQ((*writer)->dropped(), 1);
}

TEST(LogWriterTest, R30_AFileIsOpenedAgainForThoseWhoRotateIt) {
  const TempFolder folder;
  const std::string path = folder.path() + "/log";
  const mode_t mask = umask(0);
  auto writer = LogWriter::Create(path, LossLine);
  umask(mask);
  ASSERT_TRUE(writer.ok()) << writer.status();
  struct stat info = {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
  (*writer)->Write("one\n");
  EXPECT_TRUE((*writer)->Flush());
  const std::string old = folder.path() + "/log.1";
  ASSERT_EQ(rename(path.c_str(), old.c_str()), 0);
  (*writer)->Write("two\n");
  EXPECT_TRUE((*writer)->Flush());
  (*writer)->Reopen(FailureLine);
  (*writer)->Write("three\n");
  EXPECT_TRUE((*writer)->Flush());
  EXPECT_EQ(ContentOf(old), "one\ntwo\n");
  EXPECT_EQ(ContentOf(path), "three\n");

  // If the name leads elsewhere, the old file goes on.
  ASSERT_EQ(rename(path.c_str(), old.c_str()), 0);
  ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
  (*writer)->Reopen(FailureLine);
  (*writer)->Write("four\n");
  EXPECT_TRUE((*writer)->Flush());
  EXPECT_EQ(ContentOf(old),
            absl::StrCat("three\nfailed ", path,
                         ": cannot be written: is a folder, not a file\n"
                         "four\n"));
}

TEST(LogWriterTest, R30_OnlyRegularFiles) {
  const TempFolder folder;
  const auto error = [](const std::string& path) {
    const absl::Status made = LogWriter::Create(path, LossLine).status();
    EXPECT_EQ(CheckLogFile(path), made);
    return std::string(made.message());
  };
  EXPECT_THAT(error(folder.path()), HasSubstr("is a folder, not a file"));
  EXPECT_THAT(error("/dev/zero"), HasSubstr("is not a regular file"));
  const std::string fifo = folder.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(error(fifo), HasSubstr("is not a regular file"));
  EXPECT_THAT(error(folder.path() + "/none/log"), HasSubstr("No such file"));
  const std::string fresh = folder.path() + "/fresh";
  EXPECT_TRUE(CheckLogFile(fresh).ok());
  EXPECT_NE(access(fresh.c_str(), F_OK), 0);
}

TEST(LogWriterTest, R30_ManyThreadsWhileFilesChange) {
  const TempFolder folder;
  const std::string path = folder.path() + "/log";
  auto writer = LogWriter::Create(path, LossLine);
  ASSERT_TRUE(writer.ok()) << writer.status();
  constexpr int kThreads = 4, kLines = 500;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < kLines; ++k) {
        (*writer)->Write("line\n");
        if (k % 100 == 0) (*writer)->Reopen(FailureLine);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  while (!(*writer)->Flush()) {
  }
  std::string expected;
  for (int i = 0; i < kThreads * kLines; ++i) expected += "line\n";
  EXPECT_EQ(ContentOf(path), expected);
  EXPECT_EQ((*writer)->dropped(), 0);
}

}  // namespace
}  // namespace qk
