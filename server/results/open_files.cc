#include "server/results/open_files.h"

#include <unistd.h>

#include <utility>

namespace qk {

OpenFile::~OpenFile() { close(fd_); }

std::shared_ptr<OpenFile> OpenFiles::Find(const void* owner) {
  MutexLock lock(&mutex_);
  const auto found = by_owner_.find(owner);
  if (found == by_owner_.end()) return nullptr;
  files_.splice(files_.begin(), files_, found->second);
  return found->second->file;
}

void OpenFiles::Keep(const void* owner, std::shared_ptr<OpenFile> file) {
  std::shared_ptr<OpenFile> given_up;  // closed after the lock is released
  MutexLock lock(&mutex_);
  files_.push_front({owner, std::move(file)});
  by_owner_[owner] = files_.begin();
  if (static_cast<int>(files_.size()) <= most_) return;
  given_up = std::move(files_.back().file);
  by_owner_.erase(files_.back().owner);
  files_.pop_back();
}

void OpenFiles::Drop(const void* owner) {
  std::shared_ptr<OpenFile> dropped;
  MutexLock lock(&mutex_);
  const auto found = by_owner_.find(owner);
  if (found == by_owner_.end()) return;
  dropped = std::move(found->second->file);
  files_.erase(found->second);
  by_owner_.erase(found);
}

}  // namespace qk
