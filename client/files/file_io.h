// Reads whole files, and writes them so that no reader sees a partial file.
#ifndef QKSCOPE_CLIENT_FILES_FILE_IO_H_
#define QKSCOPE_CLIENT_FILES_FILE_IO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/small_file.h"

namespace qk::client {

// Files and pipes with content, which may be as large as an answer.
inline constexpr SmallFileOptions kContent = {.max_bytes = int64_t{64} << 30,
                                              .streams = true};
// Files and pipes that become part of one message.
inline constexpr SmallFileOptions kMessagePart = {
    .max_bytes = int64_t{64} << 20, .streams = true};
// Tokens and certificates, which may come through a pipe.
inline constexpr SmallFileOptions kSecret = {.streams = true};

// Reads a file; "-" is standard input. Errors (NOT_FOUND, PERMISSION_DENIED and
// others) name the file.
absl::StatusOr<std::string> ReadFile(
    const std::string& path, const SmallFileOptions& options = kContent);

enum class FileMode {
  kUsual,    // the mode follows the process's umask
  kPrivate,  // mode 0600; an existing file keeps its mode and owner
};

// Finds out whether WriteFileAtomically could write `path`, and leaves nothing
// behind. Call it before work whose result is to be saved there.
absl::Status CheckWritable(const std::string& path);

// Whether both paths lead to the same file, which need not exist yet.
bool IsSameFile(const std::string& a, const std::string& b);

// Writes the parts to a temporary file beside `path`, syncs it and renames it
// over `path`. On failure `path` is unchanged. A symbolic link stays, and the
// file that it leads to is written. A device or a pipe is written as it is.
absl::Status WriteFileAtomically(const std::string& path,
                                 const std::vector<const std::string*>& parts,
                                 FileMode mode = FileMode::kUsual);

// Whether reading or writing a local file failed.
bool IsFileError(const absl::Status& status);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_FILE_IO_H_
