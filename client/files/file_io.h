// Reads whole files, and writes them so that no reader sees a partial file.
#ifndef QKSCOPE_CLIENT_FILES_FILE_IO_H_
#define QKSCOPE_CLIENT_FILES_FILE_IO_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace qk::client {

// Reads a file; "-" is standard input. Errors (NOT_FOUND, PERMISSION_DENIED and
// others) name the file.
absl::StatusOr<std::string> ReadFile(const std::string& path);

enum class FileMode {
  kUsual,    // the mode follows the process's umask
  kPrivate,  // mode 0600; an existing file keeps its mode and owner
};

// Writes the parts to a temporary file beside `path`, syncs it and renames it
// over `path`. On failure `path` is unchanged.
absl::Status WriteFileAtomically(const std::string& path,
                                 const std::vector<const std::string*>& parts,
                                 FileMode mode = FileMode::kUsual);

// Whether reading or writing a local file failed.
bool IsFileError(const absl::Status& status);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_FILE_IO_H_
