// What writing a file whole is made of. Both functions return false and leave
// the reason in errno.
#ifndef QKSCOPE_ENGINE_BASE_WRITE_FILE_H_
#define QKSCOPE_ENGINE_BASE_WRITE_FILE_H_

#include <string>

#include "absl/strings/string_view.h"

namespace qk {

// Writes all of `content` to a blocking descriptor.
bool WriteAll(int fd, absl::string_view content);

// Makes changes of the names in a folder last.
bool SyncFolder(const std::string& path);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_WRITE_FILE_H_
