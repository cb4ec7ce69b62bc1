// Notices that files have changed, by looking at them once a second: works for
// renames, symlinked folders (Kubernetes) and network file systems alike.
#ifndef QKSCOPE_SERVER_COMMON_FILE_WATCH_H_
#define QKSCOPE_SERVER_COMMON_FILE_WATCH_H_

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "engine/base/mutex.h"

namespace qk {

class FileWatch {
 public:
  // What differs from the files as they are now is a change.
  explicit FileWatch(std::vector<std::string> files);
  ~FileWatch();

  // `on_change` runs on the watch's thread. Call once.
  void Start(std::function<void()> on_change);

 private:
  // A line per file: inode, size, times.
  std::string Look() const;
  void Loop(const std::function<void()>& on_change);

  const std::vector<std::string> files_;
  std::string seen_;  // by the thread
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// The whole file. Errors: `file: cannot be read`, NOT_FOUND.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_FILE_WATCH_H_
