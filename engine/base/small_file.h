// Reads a small file whole: configurations, users, certificates, JSON. All such
// files are read here, because a path may lead to anything.
#ifndef QKSCOPE_ENGINE_BASE_SMALL_FILE_H_
#define QKSCOPE_ENGINE_BASE_SMALL_FILE_H_

#include <sys/stat.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace qk {

// Enough for any configuration, users file or certificate, in bytes.
inline constexpr int64_t kMaxSmallFile = int64_t{16} << 20;

struct SmallFileOptions {
  int64_t max_bytes = kMaxSmallFile;
  // Also reads what is no regular file, and waits for it: a pipe until its
  // writers are gone, a terminal until its end; at most 1 GiB, because some
  // have no end.
  bool streams = false;
};

// Returns the content of a regular file; links are followed. Opening never
// waits, as it would for the writer of a FIFO, unless `streams`. `mode`, if not
// nullptr, receives the file's mode. Errors: `PATH: cannot be read: reason`,
// with the codes of ErrnoStatus; INVALID_ARGUMENT for other kinds of files and
// for one that is too large. May be called on any thread.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          const SmallFileOptions& options = {},
                                          mode_t* mode = nullptr);

// The same for a descriptor that is open, and stays open. Errors are the reason
// alone.
absl::StatusOr<std::string> ReadDescriptor(int fd,
                                           const SmallFileOptions& options,
                                           mode_t* mode = nullptr);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_SMALL_FILE_H_
