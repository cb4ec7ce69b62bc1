// A bounded number of open files, whatever the number of files: a file is
// opened when it is used, and those used last stay open for the next time.
#ifndef QKSCOPE_SERVER_RESULTS_OPEN_FILES_H_
#define QKSCOPE_SERVER_RESULTS_OPEN_FILES_H_

#include <list>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"

namespace qk {

// Closes the descriptor when its last user lets go of it.
class OpenFile {
 public:
  explicit OpenFile(int fd) : fd_(fd) {}
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

// Thread-safe. A file that is given up while a thread uses it stays open until
// the thread is done, so there are at most `most` descriptors, and one more for
// each such thread.
class OpenFiles {
 public:
  explicit OpenFiles(int most) : most_(most) {}

  // The file that is open for `owner`; nullptr: none is.
  std::shared_ptr<OpenFile> Find(const void* owner) ABSL_LOCKS_EXCLUDED(mutex_);
  // Keeps the file for its owner, who has none; may give up another owner's.
  void Keep(const void* owner, std::shared_ptr<OpenFile> file)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Drop(const void* owner) ABSL_LOCKS_EXCLUDED(mutex_);
  int most() const { return most_; }

 private:
  struct Kept {
    const void* owner;
    std::shared_ptr<OpenFile> file;
  };
  const int most_;
  Mutex mutex_;
  std::list<Kept> files_ ABSL_GUARDED_BY(mutex_);  // the last used one first
  std::map<const void*, std::list<Kept>::iterator> by_owner_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_RESULTS_OPEN_FILES_H_
