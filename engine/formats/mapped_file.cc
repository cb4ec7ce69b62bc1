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
#include "engine/base/file_error.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

absl::Status SystemError(const std::string& name, int error) {
  std::string problem = absl::StrCat("cannot be read: ", std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) problem = "no such file";
  if (error == EACCES || error == EPERM) problem = "permission denied";
  return ErrnoStatus(error, absl::StrCat(name, ": ", problem));
}

absl::Status CheckRegular(const std::string& name, const struct stat& info) {
  if (S_ISREG(info.st_mode)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ": not a regular file"));
}

}  // namespace

// https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
absl::Status CheckNotLfsPointer(absl::string_view name,
                                absl::string_view content) {
  constexpr absl::string_view kBeginning = "version https://git-lfs.github.com";
  constexpr size_t kMaxPointerBytes = 1024;
  if (content.size() > kMaxPointerBytes ||
      content.substr(0, kBeginning.size()) != kBeginning) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      name,
      ": a git-lfs pointer, not the file itself: run `git lfs pull` in "
      "the repository, or download the file"));
}

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ||
         (errno != ENOENT && errno != ENOTDIR);
}

absl::StatusOr<int> OpenRegularFile(const std::string& path) {
  const std::string name = FileNameOf(path);
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": NUL in the name"));
  }
  struct stat info;
  // Looks first: opening some devices has effects.
  if (stat(path.c_str(), &info) != 0) return SystemError(name, errno);
  QK_RETURN_IF_ERROR(CheckRegular(name, info));
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return SystemError(name, errno);
  return fd;
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(
    const std::string& path) {
  std::string name = FileNameOf(path);
  QK_ASSIGN_OR_RETURN(const int fd, OpenRegularFile(path));
  absl::Cleanup close_fd = [fd] { close(fd); };

  struct stat info;
  if (fstat(fd, &info) != 0) return SystemError(name, errno);
  QK_RETURN_IF_ERROR(CheckRegular(name, info));
  if (info.st_size == 0) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": empty file"));
  }
  void* data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ,
                    MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return SystemError(name, errno);
  std::move(close_fd).Cancel();
  std::unique_ptr<MappedFile> file(new MappedFile(
      std::move(name), fd, info, static_cast<const uint8_t*>(data)));
  QK_RETURN_IF_ERROR(
      file->Explain(CheckNotLfsPointer(file->name(), file->text())));
  return file;
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
  if (changed) {
    return absl::UnavailableError(
        absl::StrCat(name_, ": was changed while it was read"));
  }
  return guard_->faulted() ? SystemError(name_, EIO) : absl::OkStatus();
}

absl::Status MappedFile::Explain(const absl::Status& problem) const {
  if (problem.ok()) return problem;
  const absl::Status read = ReadStatus();
  return read.ok() ? problem : read;
}

}  // namespace qk
