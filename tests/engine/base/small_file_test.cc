// Tests what a path to a small file may lead to.
#include "engine/base/small_file.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/file_error.h"
#include "gtest/gtest.h"
#include "tests/temp_folder.h"

namespace qk {
namespace {

using testing::TempFolder;

void ExpectFailure(const std::string& path, absl::StatusCode code,
                   const std::string& reason) {
  const absl::Status status = ReadSmallFile(path).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_EQ(status.message(), absl::StrCat(path, ": cannot be read: ", reason));
}

TEST(SmallFileTest, R23_ReadsRegularFilesThroughLinks) {
  const TempFolder folder;
  const std::string content("a\0b\xff", 4);
  const std::string path = folder.Write("f", content);
  const std::string link = folder.path() + "/link";
  ASSERT_EQ(symlink("f", link.c_str()), 0);
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  mode_t mode = 0;
  EXPECT_EQ(ReadSmallFile(link, {}, &mode).value_or("-"), content);
  EXPECT_EQ(mode, S_IFREG | 0640u);
  EXPECT_EQ(ReadSmallFile(folder.Write("none", "")).value_or("-"), "");
  // A file whose size says nothing.
  EXPECT_GT(ReadSmallFile("/proc/self/status").value_or("").size(), 100u);
}

TEST(SmallFileTest, R23_SaysWhatElseThePathLeadsTo) {
  const TempFolder folder;
  const std::string at = folder.path() + "/";
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  const auto kNone = absl::StatusCode::kNotFound;
  ExpectFailure(folder.path(), kInvalid, "is a folder, not a file");
  ExpectFailure(at + "none", kNone, std::strerror(ENOENT));
  ExpectFailure(folder.Write("f", "x") + "/f", kNone, std::strerror(ENOTDIR));
  ExpectFailure("", kNone, std::strerror(ENOENT));
  ExpectFailure("/dev/zero", kInvalid, "is not a regular file");
  ASSERT_EQ(mkfifo((at + "fifo").c_str(), 0600), 0);
  ExpectFailure(at + "fifo", kInvalid, "is not a regular file");
  ASSERT_EQ(symlink("/dev/zero", (at + "zero").c_str()), 0);
  ExpectFailure(at + "zero", kInvalid, "is not a regular file");
  ASSERT_EQ(symlink("ring", (at + "ring").c_str()), 0);
  ExpectFailure(at + "ring", kInvalid, std::strerror(ELOOP));
  ExpectFailure(at + std::string(300, 'x'), kInvalid,
                std::strerror(ENAMETOOLONG));
  const std::string nul = at + std::string("\0f", 2);
  EXPECT_EQ(ReadSmallFile(nul).status().code(), kInvalid);

  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (at + "s").c_str(),
               sizeof(address.sun_path) - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
            0);
  ExpectFailure(at + "s", kInvalid, "is not a regular file");
  close(fd);
}

TEST(SmallFileTest, R23_ReadsNothingThatIsTooLarge) {
  const TempFolder folder;
  const std::string path = folder.Write("huge", "");
  ASSERT_EQ(truncate(path.c_str(), int64_t{1} << 30), 0);
  ExpectFailure(path, absl::StatusCode::kInvalidArgument,
                "has 1073741824 bytes, limit 16777216");
  SmallFileOptions options;
  options.max_bytes = 3;
  const std::string small = folder.Write("small", "abc");
  EXPECT_EQ(ReadSmallFile(small, options).value_or("-"), "abc");
  folder.Write("small", "abcd");
  EXPECT_FALSE(ReadSmallFile(small, options).ok());
  // A device has no size, and no end.
  options.max_bytes = 1000;
  options.streams = true;
  EXPECT_EQ(ReadSmallFile("/dev/zero", options).status().message(),
            "/dev/zero: cannot be read: has more than 1000 bytes, limit 1000");
}

TEST(SmallFileTest, R23_FaultsOfTheMachineAreNoFaultsOfTheFile) {
  // Reading at address 0 of a process is EIO.
  const absl::Status io = ReadSmallFile("/proc/self/mem").status();
  EXPECT_EQ(io.code(), absl::StatusCode::kUnavailable) << io;
  EXPECT_EQ(io.message(), absl::StrCat("/proc/self/mem: cannot be read: ",
                                       std::strerror(EIO)));
  EXPECT_TRUE(IsMachineFault(io));

  const TempFolder folder;
  const std::string path = folder.Write("f", "x");
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::Status full = ReadSmallFile(path).status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_TRUE(IsMachineFault(full));
  for (const int error : {ENOENT, EACCES, EISDIR, EROFS, ELOOP, ENXIO}) {
    EXPECT_FALSE(IsMachineFault(ErrnoStatus(error, "x"))) << error;
  }
  for (const int error : {ENFILE, ENOMEM, ENOSPC, EIO, ESTALE, EBUSY}) {
    EXPECT_TRUE(IsMachineFault(ErrnoStatus(error, "x"))) << error;
  }
}

TEST(SmallFileTest, R23_StreamsAreReadToTheirEnd) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "token", 5), 5);
  close(ends[1]);
  SmallFileOptions options;
  EXPECT_FALSE(ReadDescriptor(ends[0], options).ok());
  options.streams = true;
  EXPECT_EQ(
      ReadSmallFile(absl::StrCat("/dev/fd/", ends[0]), options).value_or("-"),
      "token");
  close(ends[0]);
}

}  // namespace
}  // namespace qk
