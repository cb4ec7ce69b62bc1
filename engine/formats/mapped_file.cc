#include "engine/formats/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

absl::Status SystemError(const std::string& name, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(absl::StrCat(name, ": no such file"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(name, ": permission denied"));
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(
          absl::StrCat(name, ": ", std::strerror(error)));
    default:
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": cannot be read: ", std::strerror(error)));
  }
}

// A repository that was cloned without git-lfs has these in place of its large
// files: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
absl::Status CheckNotLfsPointer(const std::string& name, int fd, int64_t size) {
  constexpr absl::string_view kBeginning = "version https://git-lfs.github.com";
  constexpr int64_t kMaxPointerBytes = 1024;
  char text[kBeginning.size()];
  if (size > kMaxPointerBytes ||
      pread(fd, text, sizeof text, 0) != static_cast<ssize_t>(sizeof text) ||
      absl::string_view(text, sizeof text) != kBeginning) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      name,
      ": a git-lfs pointer, not the file itself: run `git lfs pull` in "
      "the repository, or download the file"));
}

}  // namespace

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(
    const std::string& path) {
  std::string name = FileNameOf(path);
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": NUL in the name"));
  }
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return SystemError(name, errno);
  absl::Cleanup close_fd = [fd] { close(fd); };

  struct stat info;
  if (fstat(fd, &info) != 0) return SystemError(name, errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": not a regular file"));
  }
  if (info.st_size == 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": empty file"));
  }
  QK_RETURN_IF_ERROR(CheckNotLfsPointer(name, fd, info.st_size));
  void* data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ,
                    MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return SystemError(name, errno);
  std::move(close_fd).Cancel();
  return std::unique_ptr<MappedFile>(new MappedFile(
      std::move(name), fd, info, static_cast<const uint8_t*>(data)));
}

MappedFile::MappedFile(std::string name, int fd, const struct stat& info,
                       const uint8_t* data)
    : name_(std::move(name)),
      fd_(fd),
      modified_(info.st_mtim),
      data_(data),
      size_(static_cast<size_t>(info.st_size)) {
  guard_.emplace(data_, size_);
}

MappedFile::~MappedFile() {
  guard_.reset();
  munmap(const_cast<uint8_t*>(data_), size_);
  close(fd_);
}

void MappedFile::DropPages() {
  madvise(const_cast<uint8_t*>(data_), size_, MADV_DONTNEED);
}

absl::Status MappedFile::ReadStatus() const {
  struct stat info;
  if (fstat(fd_, &info) != 0) return SystemError(name_, errno);
  const bool changed = static_cast<size_t>(info.st_size) != size_ ||
                       info.st_mtim.tv_sec != modified_.tv_sec ||
                       info.st_mtim.tv_nsec != modified_.tv_nsec;
  if (!guard_->faulted() && !changed) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(name_, ": was changed while it was read"));
}

}  // namespace qk
