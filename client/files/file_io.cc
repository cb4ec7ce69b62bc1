#include "client/files/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <random>
#include <system_error>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "engine/base/write_file.h"

namespace qk::client {
namespace {

constexpr char kFileErrorUrl[] = "qkscope/file_error";

// Makes IsFileError true.
absl::Status Marked(absl::Status status) {
  status.SetPayload(kFileErrorUrl, absl::Cord("1"));
  return status;
}

absl::Status FileError(const char* action, const std::string& path, int error) {
  std::string text = absl::StrCat("cannot ", action, " ", path);
  const std::string folder = std::filesystem::path(path).parent_path().string();
  std::error_code ignored;
  if (error == ENOENT && !folder.empty() &&
      !std::filesystem::exists(folder, ignored)) {
    absl::StrAppend(&text, ": there is no folder ", folder);
  }
  return Marked(absl::ErrnoToStatus(error, text));
}

// Returns 0, or the errno of the first write that failed.
int WriteParts(int fd, const std::vector<const std::string*>& parts) {
  for (const std::string* part : parts) {
    if (!WriteAll(fd, *part)) return errno;
  }
  return 0;
}

// Returns the file that `path` leads to, if it exists.
std::string TargetOf(const std::string& path) {
  std::error_code failed;
  const auto target = std::filesystem::canonical(path, failed);
  return failed ? path : target.string();
}

// A file that a killed process has left has another name.
std::string TemporaryName(const std::string& path) {
  std::random_device random;
  return absl::StrCat(path, ".tmp.", getpid(), ".", random());
}

int OpenNew(const std::string& path, mode_t mode) {
  return open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
}

// Whether the path is neither a regular file nor a folder, such as /dev/null.
bool IsDevice(const std::string& path) {
  struct stat file = {};
  return stat(path.c_str(), &file) == 0 && !S_ISREG(file.st_mode) &&
         !S_ISDIR(file.st_mode);
}

absl::Status WriteDevice(const std::string& path,
                         const std::vector<const std::string*>& parts) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return FileError("write", path, errno);
  int error = WriteParts(fd, parts);
  if (close(fd) != 0 && error == 0) error = errno;
  return error == 0 ? absl::OkStatus() : FileError("write", path, error);
}

// Gives a new file the mode and the owner of the file that it will replace.
int KeepAccess(const std::string& path, int fd) {
  struct stat old = {};
  if (stat(path.c_str(), &old) != 0) return errno == ENOENT ? 0 : errno;
  const bool same = old.st_uid == geteuid() && old.st_gid == getegid();
  if (!same && fchown(fd, old.st_uid, old.st_gid) != 0) return errno;
  return fchmod(fd, old.st_mode & 07777) == 0 ? 0 : errno;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     const SmallFileOptions& options) {
  int fd = STDIN_FILENO;
  if (path != "-") {
    const int flags = O_RDONLY | O_CLOEXEC;
    fd = open(path.c_str(), options.streams ? flags : flags | O_NONBLOCK);
    if (fd < 0) return FileError("read", path, errno);
  }
  absl::StatusOr<std::string> content = ReadDescriptor(fd, options);
  if (path != "-") close(fd);
  if (content.ok()) return content;
  return Marked(absl::Status(
      content.status().code(),
      absl::StrCat("cannot read ", path == "-" ? "standard input" : path, ": ",
                   content.status().message())));
}

absl::Status CheckWritable(const std::string& path) {
  if (path.empty()) return FileError("write", "''", ENOENT);
  const std::string target = TargetOf(path);
  struct stat old = {};
  if (stat(target.c_str(), &old) == 0) {
    if (S_ISDIR(old.st_mode)) return FileError("write", path, EISDIR);
    // A file that is read-only is not to be replaced.
    if (access(target.c_str(), W_OK) != 0) {
      return FileError("write", path, errno);
    }
    if (!S_ISREG(old.st_mode)) return absl::OkStatus();
  }
  // A name like "folder/" is no file's.
  if (target.back() == '/') return FileError("write", path, EISDIR);
  const std::string temporary = TemporaryName(target);
  const int fd = OpenNew(temporary, 0666);
  if (fd < 0) return FileError("write", path, errno);
  close(fd);
  unlink(temporary.c_str());
  return absl::OkStatus();
}

bool IsSameFile(const std::string& a, const std::string& b) {
  std::error_code error_a, error_b;
  const auto whole_a = std::filesystem::weakly_canonical(a, error_a);
  const auto whole_b = std::filesystem::weakly_canonical(b, error_b);
  return !error_a && !error_b && whole_a == whole_b;
}

absl::Status WriteFileAtomically(const std::string& path,
                                 const std::vector<const std::string*>& parts,
                                 FileMode mode) {
  const std::string target = TargetOf(path);
  if (IsDevice(target)) return WriteDevice(path, parts);
  const std::string temporary = TemporaryName(target);
  const bool is_private = mode == FileMode::kPrivate;
  const int fd = OpenNew(temporary, is_private ? 0600 : 0666);
  if (fd < 0) return FileError("write", path, errno);
  int error = is_private ? KeepAccess(target, fd) : 0;
  if (error == 0) error = WriteParts(fd, parts);
  if (error == 0 && fsync(fd) != 0) error = errno;
  if (close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && std::rename(temporary.c_str(), target.c_str()) != 0) {
    error = errno;
  }
  if (error == 0) return absl::OkStatus();
  unlink(temporary.c_str());
  return FileError("write", path, error);
}

bool IsFileError(const absl::Status& status) {
  return status.GetPayload(kFileErrorUrl).has_value();
}

}  // namespace qk::client
