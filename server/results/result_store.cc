#include "server/results/result_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "engine/base/check.h"
#include "server/common/text.h"

namespace qk {

KeptResult::KeptResult(std::unique_ptr<SpoolFile> file)
    : file_(std::move(file)), offsets_(file_->offsets()) {
  if (file_->end().finished_unix_ms() == 0) return;
  finished_ = true;
  finished_at_ = absl::FromUnixMillis(file_->end().finished_unix_ms());
  status_ = absl::Status(static_cast<absl::StatusCode>(file_->end().code()),
                         file_->end().message());
}

absl::Status KeptResult::Append(absl::string_view event) {
  QK_ASSIGN_OR_RETURN(const int64_t offset, file_->Append(event));
  {
    MutexLock lock(&mutex_);
    offsets_.push_back(offset);
  }
  Wake();
  return absl::OkStatus();
}

void KeptResult::Finish(const absl::Status& status) {
  const absl::Time now = absl::Now();
  ::qkscope::v1::SpoolEnd end;
  end.set_finished_unix_ms(absl::ToUnixMillis(now));
  end.set_code(static_cast<int>(status.code()));
  end.set_message(std::string(status.message()));
  {
    MutexLock lock(&mutex_);
    end.set_events(static_cast<int64_t>(offsets_.size()));
  }
  const absl::Status complete = file_->Complete(end);
  {
    MutexLock lock(&mutex_);
    finished_ = true;
    finished_at_ = now;
    status_ = status.ok() ? complete : status;
  }
  Wake();
}

void KeptResult::Wake() {
  std::vector<std::function<void()>> waiting;
  {
    MutexLock lock(&mutex_);
    waiting.swap(waiting_);
  }
  for (const auto& wake : waiting) wake();
}

absl::StatusOr<KeptResult::Next> KeptResult::Get(
    int64_t seq, const std::function<void()>& wake) {
  Next next;
  int64_t offset = 0;
  {
    MutexLock lock(&mutex_);
    const int64_t events = static_cast<int64_t>(offsets_.size());
    if (seq >= events) {
      if (!finished_) {
        waiting_.push_back(wake);
        return next;
      }
      if (seq > events) {
        return absl::OutOfRangeError(absl::StrFormat(
            "from_seq: must be in [0, %d], got %d", events, seq));
      }
      next.kind = Next::kEnd;
      next.status = status_;
      return next;
    }
    offset = offsets_[seq];
  }
  next.kind = Next::kEvent;
  QK_ASSIGN_OR_RETURN(next.event, file_->Read(offset));
  return next;
}

KeptResult::State KeptResult::state() const {
  MutexLock lock(&mutex_);
  return {static_cast<int64_t>(offsets_.size()), file_->bytes(), finished_,
          finished_at_, status_};
}

absl::StatusOr<std::unique_ptr<ResultStore>> ResultStore::Open(
    const Options& options, std::vector<std::string>* damaged) {
  std::unique_ptr<ResultStore> store(new ResultStore(options));
  QK_RETURN_IF_ERROR(store->Lock());
  QK_RETURN_IF_ERROR(store->Recover(damaged));
  store->thread_ = std::thread([s = store.get()] { s->Loop(); });
  return store;
}

ResultStore::~ResultStore() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
  if (lock_fd_ >= 0) close(lock_fd_);
}

absl::Status ResultStore::Lock() {
  const auto bad = [](const char* problem) {
    return absl::FailedPreconditionError(
        absl::StrCat("spool.directory: ", problem));
  };
  if (mkdir(options_.directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return bad(std::strerror(errno));
  }
  const std::string path = absl::StrCat(options_.directory, "/lock");
  lock_fd_ =
      open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock_fd_ < 0) return bad(std::strerror(errno));
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    return bad("in use by another server");
  }
  return absl::OkStatus();
}

absl::Status ResultStore::Recover(std::vector<std::string>* damaged) {
  DIR* folder = opendir(options_.directory.c_str());
  if (folder == nullptr) {
    return absl::FailedPreconditionError("spool.directory: cannot be read");
  }
  std::vector<std::string> names;
  while (const dirent* entry = readdir(folder)) names.push_back(entry->d_name);
  closedir(folder);
  MutexLock lock(&mutex_);
  for (const std::string& name : names) {
    const std::string path = absl::StrCat(options_.directory, "/", name);
    const std::string id = name.substr(0, name.find('.'));
    if (!IsRequestId(id)) continue;  // not ours
    if (name == id + kSpoolPart) unlink(path.c_str());
    if (name != id + kSpoolResult) continue;
    auto file = SpoolFile::Open(options_.directory, id);
    if (!file.ok()) {
      damaged->push_back(std::string(file.status().message()));
      unlink(path.c_str());
      continue;
    }
    results_[id].result = std::make_shared<KeptResult>(*std::move(file));
  }
  Expire(absl::Now());
  return absl::OkStatus();
}

void ResultStore::Loop() {
  const absl::Duration interval =
      std::clamp(options_.ttl / 4, absl::Milliseconds(50), absl::Seconds(10));
  const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_;
  };
  MutexLock lock(&mutex_);
  while (!stopping_) {
    changed_.WaitFor(&mutex_, interval, stopping);
    Expire(absl::Now());
  }
}

void ResultStore::Expire(absl::Time now) {
  for (auto it = results_.begin(); it != results_.end();) {
    const KeptResult::State state = it->second.result->state();
    if (state.finished && now - state.finished_at >= options_.ttl) {
      it->second.result->file_->Remove();
      it = results_.erase(it);
    } else {
      ++it;
    }
  }
}

int64_t ResultStore::BytesLocked() const {
  int64_t bytes = 0;
  for (const auto& [id, entry] : results_) {
    const KeptResult::State state = entry.result->state();
    bytes +=
        state.finished ? state.bytes : std::max(entry.reserved, state.bytes);
  }
  return bytes;
}

int64_t ResultStore::bytes() const {
  MutexLock lock(&mutex_);
  return BytesLocked();
}

absl::StatusOr<std::shared_ptr<KeptResult>> ResultStore::Create(
    const ::qkscope::v1::SpoolHeader& header, int64_t bytes) {
  MutexLock lock(&mutex_);
  Expire(absl::Now());
  const int64_t left = options_.max_bytes - BytesLocked();
  if (bytes > left) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "spool: the result needs %s, %s free; reduce layers/heads/positions, "
        "or cancel old requests",
        HumanBytes(bytes), HumanBytes(std::max<int64_t>(0, left))));
  }
  QK_ASSIGN_OR_RETURN(auto file, SpoolFile::Create(options_.directory, header));
  Entry& entry = results_[header.request_id()];
  entry.result = std::make_shared<KeptResult>(std::move(file));
  entry.reserved = bytes;
  return entry.result;
}

absl::StatusOr<std::shared_ptr<KeptResult>> ResultStore::Find(
    const std::string& id, const std::string& user) const {
  MutexLock lock(&mutex_);
  const auto it = results_.find(id);
  if (it != results_.end() && it->second.result->header().user() == user) {
    const KeptResult::State state = it->second.result->state();
    if (!state.finished || absl::Now() - state.finished_at < options_.ttl) {
      return it->second.result;
    }
  }
  return absl::NotFoundError("request_id: no such result");
}

std::vector<std::shared_ptr<KeptResult>> ResultStore::List(
    const std::optional<std::string>& user) const {
  std::vector<std::shared_ptr<KeptResult>> out;
  {
    MutexLock lock(&mutex_);
    for (const auto& [id, entry] : results_) {
      if (!user.has_value() || entry.result->header().user() == *user) {
        out.push_back(entry.result);
      }
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return a->header().created_unix_ms() < b->header().created_unix_ms();
  });
  return out;
}

void ResultStore::Drop(const std::string& id) {
  MutexLock lock(&mutex_);
  const auto it = results_.find(id);
  if (it == results_.end()) return;
  it->second.result->file_->Remove();
  results_.erase(it);
}

}  // namespace qk
