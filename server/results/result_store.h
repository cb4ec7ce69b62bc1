// Keeps the results of detached and resumable requests on disk, within a budget
// of bytes and for some time after the request has ended. Complete results
// survive a restart of the process.
#ifndef QKSCOPE_SERVER_RESULTS_RESULT_STORE_H_
#define QKSCOPE_SERVER_RESULTS_RESULT_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "server/results/spool_file.h"

namespace qk {

// One request's events, written by one thread and read by any thread.
class KeptResult {
 public:
  explicit KeptResult(std::unique_ptr<SpoolFile> file);

  const ::qkscope::v1::SpoolHeader& header() const { return file_->header(); }

  // Appends the next event, serialised.
  absl::Status Append(absl::string_view event);
  // Ends the result with the request's status. A result whose end cannot be
  // written stays readable until the process ends.
  void Finish(const absl::Status& status);

  struct Next {
    enum Kind { kEvent, kWait, kEnd } kind = kWait;
    Bytes event;          // kEvent
    absl::Status status;  // kEnd: the request's status
  };
  // Returns event `seq`, the end, or kWait if the event does not exist yet. In
  // that case `wake` is called once, on the writer's thread, when there is
  // more. OUT_OF_RANGE past the end.
  absl::StatusOr<Next> Get(int64_t seq, const std::function<void()>& wake);

  struct State {
    int64_t events = 0;
    int64_t bytes = 0;
    bool finished = false;
    absl::Time finished_at;
    absl::Status status;
  };
  State state() const;

 private:
  friend class ResultStore;
  void Wake();

  const std::unique_ptr<SpoolFile> file_;
  mutable Mutex mutex_;
  std::vector<int64_t> offsets_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time finished_at_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
};

class ResultStore {
 public:
  struct Options {
    std::string directory;
    int64_t max_bytes = int64_t{4} << 30;
    absl::Duration ttl = absl::Hours(1);
  };

  // Locks the directory for this process and finds its complete results.
  // Removes incomplete and damaged results; appends a message about each
  // damaged one to `damaged`.
  static absl::StatusOr<std::unique_ptr<ResultStore>> Open(
      const Options& options, std::vector<std::string>* damaged);
  ~ResultStore();

  // Reserves `bytes` until the result is finished. RESOURCE_EXHAUSTED if they
  // are not available.
  absl::StatusOr<std::shared_ptr<KeptResult>> Create(
      const ::qkscope::v1::SpoolHeader& header, int64_t bytes);
  // NOT_FOUND `request_id: no such result`, the same for a result that is
  // unknown, expired or another user's.
  absl::StatusOr<std::shared_ptr<KeptResult>> Find(
      const std::string& id, const std::string& user) const;
  // Lists results in order of creation. nullopt stands for all users.
  std::vector<std::shared_ptr<KeptResult>> List(
      const std::optional<std::string>& user) const;
  void Drop(const std::string& id);

  absl::Duration ttl() const { return options_.ttl; }
  int64_t bytes() const;

 private:
  struct Entry {
    std::shared_ptr<KeptResult> result;
    int64_t reserved = 0;  // bytes; counts until the result is finished
  };

  explicit ResultStore(const Options& options) : options_(options) {}
  absl::Status Lock();
  absl::Status Recover(std::vector<std::string>* damaged);
  void Loop();
  void Expire(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t BytesLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  int lock_fd_ = -1;
  mutable Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, Entry> results_ ABSL_GUARDED_BY(mutex_);  // by id
  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_RESULTS_RESULT_STORE_H_
