#include "client/files/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace qk::client {
namespace {

constexpr char kFileErrorUrl[] = "qkscope/file_error";

absl::Status FileError(const char* action, const std::string& path, int error) {
  absl::Status status =
      absl::ErrnoToStatus(error, absl::StrCat("cannot ", action, " ", path));
  status.SetPayload(kFileErrorUrl, absl::Cord("1"));
  return status;
}

// Returns 0, or the errno of the first write that failed.
int WriteAll(int fd, const std::vector<const std::string*>& parts) {
  for (const std::string* part : parts) {
    for (size_t done = 0; done < part->size();) {
      const ssize_t count = write(fd, part->data() + done, part->size() - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno;
      done += static_cast<size_t>(count);
    }
  }
  return fsync(fd) == 0 ? 0 : errno;
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

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  if (path == "-") {
    return std::string(std::istreambuf_iterator<char>(std::cin), {});
  }
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError("read", path, errno);
  std::string content;
  std::string buffer(1 << 20, '\0');
  ssize_t count;
  while ((count = read(fd, buffer.data(), buffer.size())) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) break;
    content.append(buffer, 0, static_cast<size_t>(count));
  }
  const int error = count < 0 ? errno : 0;
  close(fd);
  if (error != 0) return FileError("read", path, error);
  return content;
}

absl::Status WriteFileAtomically(const std::string& path,
                                 const std::vector<const std::string*>& parts,
                                 FileMode mode) {
  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  const bool is_private = mode == FileMode::kPrivate;
  const int fd =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
           is_private ? 0600 : 0666);
  if (fd < 0) return FileError("write", path, errno);
  int error = is_private ? KeepAccess(path, fd) : 0;
  if (error == 0) error = WriteAll(fd, parts);
  if (close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) {
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
