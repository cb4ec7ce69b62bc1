// Detects that files have changed by examining them once a second. This works
// for renames, symlinked folders (Kubernetes) and network file systems alike.
#ifndef QKSCOPE_SERVER_COMMON_FILE_WATCH_H_
#define QKSCOPE_SERVER_COMMON_FILE_WATCH_H_

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "engine/base/mutex.h"

namespace qk {

class FileWatch {
 public:
  // Changes are detected against the files' state at construction.
  explicit FileWatch(std::vector<std::string> files);
  ~FileWatch();

  // `on_change` runs on the watch's thread, and again a second later if it
  // returns a fault of the machine's (IsMachineFault) or throws. Call once.
  void Start(std::function<absl::Status()> on_change);

 private:
  // One line per file: device, inode, size, times.
  std::string Fingerprint() const;
  void Loop(const std::function<absl::Status()>& on_change);

  const std::vector<std::string> files_;
  std::string last_fingerprint_;  // the thread's own
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_FILE_WATCH_H_
