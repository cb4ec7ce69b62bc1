// Whole files, read and written so that a reader never meets half of one.
#ifndef QKSCOPE_CLIENT_FILES_FILE_IO_H_
#define QKSCOPE_CLIENT_FILES_FILE_IO_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace qk::client {

// "-" is standard input. NOT_FOUND, PERMISSION_DENIED and the like name the
// file.
absl::StatusOr<std::string> ReadFile(const std::string& path);

enum class FileMode {
  kUsual,    // as the process's umask says
  kPrivate,  // for its owner alone; one that is there keeps mode and owner
};

// Writes the parts to a temporary file beside `path`, syncs it and renames it
// over `path`. On failure `path` is as it was.
absl::Status WriteFileAtomically(const std::string& path,
                                 const std::vector<const std::string*>& parts,
                                 FileMode mode = FileMode::kUsual);

// Whether the failure is one of reading or writing a local file.
bool IsFileError(const absl::Status& status);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_FILE_IO_H_
