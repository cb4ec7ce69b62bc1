// A regular file, mapped for reading.
#ifndef QKSCOPE_ENGINE_FORMATS_MAPPED_FILE_H_
#define QKSCOPE_ENGINE_FORMATS_MAPPED_FILE_H_

#include <sys/stat.h>

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/formats/sigbus_guard.h"

namespace qk {

// Returns whether there is a file or folder of that name, or something that
// cannot be looked at now: opening it says why.
bool FileExists(const std::string& path);

// Opens a file for reading; the caller closes it. Never blocks on a FIFO.
// Symbolic links are followed: model stores are full of them. Errors are those
// of ErrnoStatus, and INVALID_ARGUMENT for anything but a regular file.
absl::StatusOr<int> OpenRegularFile(const std::string& path);

// Returns INVALID_ARGUMENT if `content` is what a repository that was cloned
// without git-lfs has in place of its large files.
absl::Status CheckNotLfsPointer(absl::string_view name,
                                absl::string_view content);

class MappedFile {
 public:
  // Errors are those of OpenRegularFile, and INVALID_ARGUMENT for an empty file
  // and for a git-lfs pointer.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(
      const std::string& path);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }
  absl::string_view text() const {
    return {reinterpret_cast<const char*>(data_), size_};
  }
  int64_t size() const { return static_cast<int64_t>(size_); }
  // The file name without folders, escaped: all that an error may say.
  const std::string& name() const { return name_; }

  // Gives resident pages back to the kernel, which reads them again on demand.
  void DropPages();

  // Returns UNAVAILABLE if the file was changed since it was opened, or if
  // reading failed; the missing bytes read as zeros. Ask after the last read,
  // before trusting what was read.
  absl::Status ReadStatus() const;
  // Returns `problem`, which was found in the content, or ReadStatus() if that
  // explains it.
  absl::Status Explain(const absl::Status& problem) const;

 private:
  // Takes ownership of the descriptor.
  MappedFile(std::string name, int fd, const struct stat& info,
             const uint8_t* data);

  std::string name_;
  int fd_;
  timespec modified_;
  const uint8_t* data_;
  size_t size_;
  std::optional<SigbusGuard> guard_;  // empty only while being destroyed
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_MAPPED_FILE_H_
