#include "engine/formats/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file_error.h"
#include "tests/engine/formats/testing.h"

namespace qk {
namespace {

using testing::ExpectError;
using testing::TempFolder;

TEST(MappedFileTest, MapsAndDropsPages) {
  const TempFolder folder;
  const std::string content(10000, 'q');
  const auto file = MappedFile::Open(folder.Write("model.bin", content));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), 10000);
  EXPECT_EQ((*file)->name(), "model.bin");
  EXPECT_EQ((*file)->text(), content);
  (*file)->DropPages();
  EXPECT_EQ((*file)->text(), content);
}

TEST(MappedFileTest, SurvivesAFileThatShrinks) {
  const TempFolder folder;
  const std::string path = folder.Write("model.bin", std::string(20000, 'q'));
  const auto file = MappedFile::Open(path);
  const auto other = MappedFile::Open(folder.Write("other.bin", "x"));
  ASSERT_TRUE(file.ok() && other.ok());
  EXPECT_EQ((*file)->bytes()[19999], 'q');
  EXPECT_TRUE((*file)->ReadStatus().ok());
  ASSERT_EQ(truncate(path.c_str(), 5000), 0);
  int64_t sum = 0;
  for (const uint8_t byte : (*file)->bytes()) sum += byte;
  EXPECT_EQ(sum, 5000 * 'q');
  const absl::Status status = (*file)->ReadStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "model.bin: was changed while it was read");
  EXPECT_TRUE((*other)->ReadStatus().ok());
  // The next file may get the same address.
  const auto again = MappedFile::Open(path);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE((*again)->ReadStatus().ok());
}

TEST(MappedFileTest, NoticesAFileThatIsRewritten) {
  const TempFolder folder;
  const std::string path = folder.Write("model.bin", "before");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok());
  const timespec times[2] = {{1, 0}, {1, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  EXPECT_EQ((*file)->ReadStatus().code(), absl::StatusCode::kUnavailable);
}

TEST(MappedFileDeathTest, OtherBusErrorsStillEndTheProcess) {
  const TempFolder folder;
  const std::string path = folder.Write("model.bin", std::string(8192, 'q'));
  const auto file = MappedFile::Open(path);
  const int fd = open(path.c_str(), O_RDONLY);
  auto* mine = static_cast<volatile uint8_t*>(
      mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE, fd, 0));
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  EXPECT_DEATH((void)mine[4096], "");
  close(fd);
}

TEST(MappedFileTest, FollowsSymbolicLinks) {
  const TempFolder folder;
  const std::string target = folder.Write("blob", "content");
  const std::string link = folder.path() + "/model.bin";
  ASSERT_EQ(symlink(target.c_str(), link.c_str()), 0);
  const auto file = MappedFile::Open(link);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->text(), "content");
}

// A page that cannot be read looks to the reader like one beyond the end of a
// file that has shrunk.
TEST(MappedFileTest, R23_BytesThatCannotBeReadAreNoBadContent) {
  const TempFolder folder;
  const std::string path = folder.Write("model.bin", std::string(8192, 'x'));
  struct stat before;
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status problem = absl::InvalidArgumentError("bad content");
  EXPECT_EQ((*file)->Explain(problem), problem);
  EXPECT_TRUE((*file)->Explain(absl::OkStatus()).ok());
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  EXPECT_EQ((*file)->bytes()[4096], 0);
  EXPECT_EQ((*file)->ReadStatus().message(),
            "model.bin: was changed while it was read");
  ASSERT_EQ(truncate(path.c_str(), 8192), 0);
  const timespec times[] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  const absl::Status read = (*file)->Explain(problem);
  EXPECT_EQ(read.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(read.message(), "model.bin: cannot be read: Input/output error");
  EXPECT_TRUE(IsMachineFault(read));
}

TEST(MappedFileTest, MissingIsNotFound) {
  const TempFolder folder;
  for (const std::string& path :
       {folder.path() + "/model.bin", folder.path() + "/none/model.bin",
        folder.Write("file", "x") + "/model.bin"}) {
    const absl::Status status = MappedFile::Open(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(status.message(), "model.bin: no such file");
  }
}

TEST(MappedFileTest, DanglingAndCircularLinks) {
  const TempFolder folder;
  const std::string link = folder.path() + "/model.bin";
  ASSERT_EQ(symlink("nowhere", link.c_str()), 0);
  EXPECT_EQ(MappedFile::Open(link).status().code(),
            absl::StatusCode::kNotFound);
  ASSERT_EQ(unlink(link.c_str()), 0);
  ASSERT_EQ(symlink("model.bin", link.c_str()), 0);
  ExpectError(MappedFile::Open(link).status(), "model.bin: cannot be read");
}

TEST(MappedFileTest, UnreadableIsPermissionDenied) {
  const TempFolder folder;
  const std::string path = folder.Write("model.bin", "x");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  ASSERT_EQ(chmod(folder.path().c_str(), 0755), 0);
  // Root can read everything, so the test runs as nobody for a moment.
  const bool was_root = geteuid() == 0;
  if (was_root) {
    ASSERT_EQ(seteuid(65534), 0);
  }
  const absl::Status status = MappedFile::Open(path).status();
  if (was_root) {
    ASSERT_EQ(seteuid(0), 0);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(status.message(), "model.bin: permission denied");
}

TEST(MappedFileTest, RefusesWhatIsNoFile) {
  const TempFolder folder;
  const std::string fifo = folder.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  ExpectError(MappedFile::Open(fifo).status(), "fifo: not a regular file");
  ExpectError(MappedFile::Open(folder.path() + "/.").status(),
              ".: not a regular file");
  ExpectError(MappedFile::Open("/dev/zero").status(),
              "zero: not a regular file");
  ExpectError(MappedFile::Open("/dev/null").status(),
              "null: not a regular file");
}

TEST(MappedFileTest, RefusesEmptyAndBadNames) {
  const TempFolder folder;
  ExpectError(MappedFile::Open(folder.Write("model.bin", "")).status(),
              "model.bin: empty file");
  ExpectError(
      MappedFile::Open(folder.Write("a", "x") + std::string("\0b", 2)).status(),
      "NUL in the name");
  const absl::Status empty = MappedFile::Open("").status();
  EXPECT_EQ(empty.code(), absl::StatusCode::kNotFound);
  const absl::Status status =
      MappedFile::Open(folder.path() + "/" + std::string(300, 'x')).status();
  ExpectError(status, "cannot be read");
}

}  // namespace
}  // namespace qk
