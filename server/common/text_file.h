// Reads the files that a configuration names.
#ifndef QKSCOPE_SERVER_COMMON_TEXT_FILE_H_
#define QKSCOPE_SERVER_COMMON_TEXT_FILE_H_

#include <sys/stat.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

// ReadSmallFile of a regular file of at most 16 MiB. Errors: `KEY: FILE: cannot
// be read: reason`, where `key` is the field or flag that names the file.
absl::StatusOr<std::string> ReadTextFile(absl::string_view key,
                                         const std::string& path,
                                         mode_t* mode = nullptr);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_TEXT_FILE_H_
