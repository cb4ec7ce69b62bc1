#include "server/common/file_watch.h"

#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/base/file_error.h"
#include "server/common/guarded.h"

namespace qk {
namespace {

constexpr absl::Duration kInterval = absl::Seconds(1);

}  // namespace

FileWatch::FileWatch(std::vector<std::string> files)
    : files_(std::move(files)), last_fingerprint_(Fingerprint()) {}

FileWatch::~FileWatch() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

void FileWatch::Start(std::function<absl::Status()> on_change) {
  thread_ = std::thread(
      [this, on_change = std::move(on_change)] { Loop(on_change); });
}

std::string FileWatch::Fingerprint() const {
  std::string out;
  for (const std::string& file : files_) {
    struct stat s = {};
    if (stat(file.c_str(), &s) != 0) s = {};
    absl::StrAppend(&out, s.st_dev, " ", s.st_ino, " ", s.st_size, " ",
                    s.st_mtim.tv_sec, ".", s.st_mtim.tv_nsec, " ",
                    s.st_ctim.tv_sec, ".", s.st_ctim.tv_nsec, "\n");
  }
  return out;
}

void FileWatch::Loop(const std::function<absl::Status()>& on_change) {
  bool again = false;
  for (;;) {
    {
      MutexLock lock(&mutex_);
      const bool stopping = changed_.WaitFor(
          &mutex_, kInterval,
          [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; });
      if (stopping) return;
    }
    const absl::Status status = Guarded("file watch", [&] {
      std::string now = Fingerprint();
      if (now == last_fingerprint_ && !again) return absl::OkStatus();
      // The fingerprint was taken before the files are read, so a later change
      // is detected again.
      last_fingerprint_ = std::move(now);
      return on_change();
    });
    again = IsMachineFault(status);
  }
}

}  // namespace qk
