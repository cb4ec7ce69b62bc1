#include "engine/base/small_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/file_error.h"

namespace qk {
namespace {

constexpr size_t kPiece = size_t{64} << 10;
constexpr int64_t kMaxStream = int64_t{1} << 30;

absl::Status CannotRead(int error) {
  return ErrnoStatus(error, error == EISDIR ? "is a folder, not a file"
                                            : std::strerror(error));
}

absl::Status TooLarge(absl::string_view bytes, int64_t limit) {
  return absl::InvalidArgumentError(
      absl::StrCat("has ", bytes, " bytes, limit ", limit));
}

absl::Status CheckKind(const struct stat& info, bool streams) {
  if (S_ISDIR(info.st_mode)) return CannotRead(EISDIR);
  if (S_ISREG(info.st_mode) || streams) return absl::OkStatus();
  return absl::InvalidArgumentError("is not a regular file");
}

absl::StatusOr<std::string> OpenAndRead(const std::string& path,
                                        const SmallFileOptions& options,
                                        mode_t* mode) {
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("NUL in the name");
  }
  // Looks first: opening some devices has effects.
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return CannotRead(errno);
  QK_RETURN_IF_ERROR(CheckKind(info, options.streams));
  const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY;
  const int fd =
      open(path.c_str(), options.streams ? flags : flags | O_NONBLOCK);
  if (fd < 0) return CannotRead(errno);
  const absl::Cleanup close_fd = [fd] { close(fd); };
  return ReadDescriptor(fd, options, mode);
}

}  // namespace

absl::StatusOr<std::string> ReadDescriptor(int fd,
                                           const SmallFileOptions& options,
                                           mode_t* mode) {
  struct stat info;
  if (fstat(fd, &info) != 0) return CannotRead(errno);
  QK_RETURN_IF_ERROR(CheckKind(info, options.streams));
  if (mode != nullptr) *mode = info.st_mode;
  // A size of 0 says nothing: files of /proc have it.
  const bool regular = S_ISREG(info.st_mode);
  const int64_t limit =
      regular ? options.max_bytes : std::min(options.max_bytes, kMaxStream);
  if (regular && info.st_size > limit) {
    return TooLarge(absl::StrCat(info.st_size), limit);
  }
  std::string text;
  for (;;) {
    const size_t had = text.size();
    text.resize(had + kPiece);
    const ssize_t count = read(fd, text.data() + had, kPiece);
    const int error = errno;
    text.resize(had + static_cast<size_t>(std::max<ssize_t>(count, 0)));
    if (count == 0) return text;
    if (count < 0 && error != EINTR) return CannotRead(error);
    if (static_cast<int64_t>(text.size()) > limit) {
      return TooLarge(absl::StrCat("more than ", limit), limit);
    }
  }
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          const SmallFileOptions& options,
                                          mode_t* mode) {
  absl::StatusOr<std::string> text = OpenAndRead(path, options, mode);
  if (text.ok()) return text;
  return absl::Status(
      text.status().code(),
      absl::StrCat(path, ": cannot be read: ", text.status().message()));
}

}  // namespace qk
