#include "server/results/result_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/base/request_id.h"
#include "server/common/retry_after.h"
#include "server/common/text.h"

namespace qk {
namespace {

constexpr char kNoResult[] = "request_id: no such result";
// When to try again while nothing that is kept has a time to expire.
constexpr absl::Duration kSoon = absl::Seconds(1);

// What is wrong with the directory: the path that the configuration has, or
// this machine.
absl::Status DirectoryError(int error) {
  const std::string message =
      absl::StrCat("spool.directory: ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EINVAL:
      return absl::FailedPreconditionError(message);
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::UnavailableError(message);
  }
}

}  // namespace

ResultStore::ResultStore(const Options& options)
    : options_(options),
      folder_(options.directory, options.most_open, options.on_error) {}

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
  if (mkdir(options_.directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return DirectoryError(errno);
  }
  const std::string path = absl::StrCat(options_.directory, "/lock");
  const int fd =
      open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return DirectoryError(errno);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    close(fd);
    return absl::FailedPreconditionError(
        "spool.directory: in use by another server");
  }
  if (lock_fd_ >= 0) close(lock_fd_);
  lock_fd_ = fd;
  return absl::OkStatus();
}

absl::Status ResultStore::Recover(std::vector<std::string>* damaged) {
  DIR* folder = opendir(options_.directory.c_str());
  if (folder == nullptr) return DirectoryError(errno);
  std::vector<std::string> names;
  while (const dirent* entry = readdir(folder)) names.push_back(entry->d_name);
  closedir(folder);
  Results found;
  for (const std::string& name : names) {
    const std::string id = name.substr(0, name.find('.'));
    if (!IsRequestId(id)) continue;  // not ours
    if (name == id + kSpoolPart) {
      unlink(absl::StrCat(options_.directory, "/", name).c_str());
    }
    if (name != id + kSpoolResult) continue;
    QK_RETURN_IF_ERROR(RecoverFile(id, &found, damaged));
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return a->header().created_unix_ms() < b->header().created_unix_ms();
  });
  MutexLock lock(&mutex_);
  for (std::shared_ptr<KeptResult>& result : found) {
    const KeptResult::State state = result->state();
    const std::string& user = result->header().user();
    Count(user, 1, state.bytes);
    by_id_[result->header().request_id()] = arrivals_;
    finished_.emplace(state.finished_at, arrivals_);
    entries_[arrivals_++] = {std::move(result), user, state.bytes,
                             state.finished_at};
  }
  return absl::OkStatus();
}

absl::Status ResultStore::RecoverFile(const std::string& id, Results* found,
                                      std::vector<std::string>* damaged) {
  auto file = SpoolFile::Open(&folder_, id);
  if (absl::IsDataLoss(file.status())) {
    damaged->push_back(std::string(file.status().message()));
    unlink(absl::StrCat(options_.directory, "/", id, kSpoolResult).c_str());
  }
  if (!file.ok()) {
    // Without descriptors or memory, no file could be read.
    return absl::IsResourceExhausted(file.status()) ? file.status()
                                                    : absl::OkStatus();
  }
  // Two times of day, between which the clock may have been set.
  const absl::Time now = options_.now(), wall = options_.wall();
  const auto age = [&](int64_t unix_ms, absl::Duration least,
                       absl::Duration most) {
    return std::clamp(wall - absl::FromUnixMillis(unix_ms), least, most);
  };
  const absl::Duration finished = age((*file)->end().finished_unix_ms(),
                                      absl::ZeroDuration(), options_.ttl);
  const absl::Duration created = age((*file)->header().created_unix_ms(),
                                     finished, absl::InfiniteDuration());
  found->push_back(std::make_shared<KeptResult>(*std::move(file), now - created,
                                                now - finished));
  return absl::OkStatus();
}

// Whether the folder is still the one that this process has locked.
bool ResultStore::HoldsFolder() const {
  struct stat ours, there;
  return fstat(lock_fd_, &ours) == 0 &&
         stat(absl::StrCat(options_.directory, "/lock").c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

// If the folder has gone, or another one is in its place: says so, locks the
// new one, and forgets results whose files have gone.
void ResultStore::CheckFolder() {
  if (HoldsFolder()) return;
  const absl::Status locked = Lock();
  folder_.Report(absl::UnavailableError(
      locked.ok()
          ? "spool.directory has gone; there is a new one now"
          : absl::StrCat("spool.directory has gone: ", locked.message())));
  Results gone;
  {
    MutexLock lock(&mutex_);
    for (auto it = entries_.begin(); it != entries_.end();) {
      const auto entry = it++;
      if (entry->second.finished_at.has_value() &&
          !entry->second.result->FileExists()) {
        gone.push_back(Erase(entry));
      }
    }
  }
  for (const auto& result : gone) result->Remove();
}

void ResultStore::Loop() {
  const absl::Duration interval =
      std::clamp(options_.ttl / 4, absl::Milliseconds(50), options_.look_every);
  for (;;) {
    {
      MutexLock lock(&mutex_);
      const bool stopping = changed_.WaitFor(
          &mutex_, interval,
          [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; });
      if (stopping) return;
    }
    CheckFolder();
    Expire();
  }
}

bool ResultStore::IsExpired(const Entry& entry, absl::Time now) const {
  return entry.finished_at.has_value() &&
         now - *entry.finished_at >= options_.ttl;
}

void ResultStore::Expire() {
  Results expired;
  {
    MutexLock lock(&mutex_);
    const absl::Time now = options_.now();
    for (auto it = finished_.begin(); it != finished_.end();) {
      const auto entry = entries_.find((it++)->second);
      if (!IsExpired(entry->second, now)) break;
      // Whoever reads it has until the end of their call.
      if (entry->second.result.use_count() > 1) continue;
      expired.push_back(Erase(entry));
    }
  }
  for (const auto& result : expired) result->Remove();
}

std::shared_ptr<KeptResult> ResultStore::Erase(Entries::iterator entry) {
  Entry& erased = entry->second;
  Count(erased.user, -1, -erased.bytes);
  if (erased.finished_at.has_value()) {
    finished_.erase({*erased.finished_at, entry->first});
  }
  std::shared_ptr<KeptResult> result = std::move(erased.result);
  by_id_.erase(result->header().request_id());
  entries_.erase(entry);
  return result;
}

void ResultStore::Count(const std::string& user, int64_t results,
                        int64_t bytes) {
  KeptAmount& of_user = kept_by_user_[user];
  for (KeptAmount* amount : {&kept_, &of_user}) {
    amount->results += results;
    amount->bytes += bytes;
  }
  if (of_user.results == 0) kept_by_user_.erase(user);
}

KeptAmount ResultStore::MostOf(const UserBudget& budget) const {
  KeptAmount most = options_.most_per_user;
  if (budget.max_kept_results > 0) most.results = budget.max_kept_results;
  if (budget.max_kept_bytes > 0) most.bytes = budget.max_kept_bytes;
  return most;
}

KeptAmount ResultStore::Kept() const {
  MutexLock lock(&mutex_);
  return kept_;
}

std::map<std::string, KeptAmount> ResultStore::KeptByUser() const {
  MutexLock lock(&mutex_);
  return kept_by_user_;
}

// A refusal with the time when the next of the results expires.
absl::Status ResultStore::Refuse(const std::string& message,
                                 const std::optional<std::string>& user) const {
  const absl::Time now = options_.now();
  absl::Duration wait = kSoon;
  for (const auto& [finished, arrival] : finished_) {
    if (user.has_value() && entries_.at(arrival).user != *user) continue;
    wait = std::max(kSoon, finished + options_.ttl - now);
    break;
  }
  return WithRetryAfter(
      absl::ResourceExhaustedError(absl::StrFormat(
          "spool: %s; cancel old requests, or retry in %d s", message,
          absl::ToInt64Seconds(absl::Ceil(wait, absl::Seconds(1))))),
      wait);
}

absl::Status ResultStore::CheckRoom(const std::string& user, int64_t bytes,
                                    const UserBudget& budget) const {
  const auto found = kept_by_user_.find(user);
  const KeptAmount mine =
      found == kept_by_user_.end() ? KeptAmount() : found->second;
  struct Limit {
    const char* whose;
    KeptAmount used, most;
    std::optional<std::string> user;
  };
  for (const Limit& limit :
       {Limit{"you keep", mine, MostOf(budget), user},
        Limit{"all users keep", kept_, options_.most, std::nullopt}}) {
    if (limit.used.results >= limit.most.results) {
      return Refuse(absl::StrFormat("%s %d results, limit %d", limit.whose,
                                    limit.used.results, limit.most.results),
                    limit.user);
    }
    if (bytes <= limit.most.bytes - limit.used.bytes) continue;
    if (bytes > limit.most.bytes) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("spool: the result needs %s, limit %s; reduce "
                          "layers/heads/positions",
                          HumanBytes(bytes), HumanBytes(limit.most.bytes)));
    }
    return Refuse(
        absl::StrFormat("the result needs %s, and %s %s, limit %s; reduce "
                        "layers/heads/positions",
                        HumanBytes(bytes), limit.whose,
                        HumanBytes(limit.used.bytes),
                        HumanBytes(limit.most.bytes)),
        limit.user);
  }
  return absl::OkStatus();
}

absl::StatusOr<ResultStore::Arrival> ResultStore::Reserve(
    const ::qkscope::v1::SpoolHeader& header, int64_t bytes,
    const UserBudget& budget) {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(CheckRoom(header.user(), bytes, budget));
  Count(header.user(), 1, bytes);
  const Arrival arrival = arrivals_++;
  entries_[arrival] = {nullptr, header.user(), bytes, std::nullopt};
  return arrival;
}

absl::StatusOr<std::shared_ptr<KeptResult>> ResultStore::Create(
    const ::qkscope::v1::SpoolHeader& header, int64_t bytes,
    const UserBudget& budget) {
  Expire();
  QK_ASSIGN_OR_RETURN(const Arrival arrival, Reserve(header, bytes, budget));
  auto file = SpoolFile::Create(&folder_, header);
  MutexLock lock(&mutex_);
  if (!file.ok()) {
    Count(header.user(), -1, -bytes);
    entries_.erase(arrival);
    return file.status();
  }
  auto result = std::make_shared<KeptResult>(*std::move(file), options_.now());
  by_id_[header.request_id()] = arrival;
  entries_[arrival].result = result;
  return result;
}

void ResultStore::Finish(KeptResult* result, const absl::Status& status) {
  const absl::Time now = options_.now();
  result->Finish(status, now, options_.wall());
  MutexLock lock(&mutex_);
  const auto id = by_id_.find(result->header().request_id());
  if (id == by_id_.end()) return;
  Entry& entry = entries_.at(id->second);
  const int64_t bytes = result->state().bytes;
  Count(entry.user, 0, bytes - entry.bytes);
  entry.bytes = bytes;
  entry.finished_at = now;
  finished_.emplace(now, id->second);
}

absl::StatusOr<std::shared_ptr<KeptResult>> ResultStore::Find(
    const std::string& id, const std::optional<std::string>& user) const {
  MutexLock lock(&mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return absl::NotFoundError(kNoResult);
  const Entry& entry = entries_.at(found->second);
  if ((user.has_value() && entry.user != *user) ||
      IsExpired(entry, options_.now())) {
    return absl::NotFoundError(kNoResult);
  }
  return entry.result;
}

std::vector<std::shared_ptr<KeptResult>> ResultStore::List(
    const std::optional<std::string>& user) const {
  Results out;
  MutexLock lock(&mutex_);
  const absl::Time now = options_.now();
  for (const auto& [arrival, entry] : entries_) {
    if (entry.result != nullptr && !IsExpired(entry, now) &&
        (!user.has_value() || entry.user == *user)) {
      out.push_back(entry.result);
    }
  }
  return out;
}

void ResultStore::Drop(const std::string& id) {
  std::shared_ptr<KeptResult> dropped;
  {
    MutexLock lock(&mutex_);
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) return;
    dropped = Erase(entries_.find(found->second));
  }
  dropped->Remove();
}

}  // namespace qk
