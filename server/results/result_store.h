// Keeps the results of detached and resumable requests on disk, within limits
// on their number and bytes, of each user and in all, and for some time after
// the request has ended. Complete results survive a restart of the process.
#ifndef QKSCOPE_SERVER_RESULTS_RESULT_STORE_H_
#define QKSCOPE_SERVER_RESULTS_RESULT_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/base/monotonic.h"
#include "engine/base/mutex.h"
#include "server/common/user.h"
#include "server/results/kept_result.h"
#include "server/results/spool_file.h"

namespace qk {

// How much is kept, or may be.
struct KeptAmount {
  int64_t results = 0;
  int64_t bytes = 0;  // on disk, or reserved by a request that has not ended
};

// Thread-safe.
class ResultStore {
 public:
  struct Options {
    std::string directory;
    KeptAmount most = {10'000, int64_t{4} << 30};  // in all
    KeptAmount most_per_user = {10'000, int64_t{4} << 30};
    absl::Duration ttl = absl::Hours(1);
    // How often it looks for what has expired, and at its folder, at least.
    absl::Duration look_every = absl::Seconds(10);
    // Descriptors that the store may hold beside its lock (see OpenFiles).
    int most_open = 16;
    // Is told of each failure of the system, on any thread.
    std::function<void(const absl::Status&)> on_error = nullptr;
    // The time of day, for what must survive a restart, and the time that ages
    // are measured in.
    std::function<absl::Time()> wall = absl::Now;
    std::function<absl::Time()> now = MonotonicNow;
  };

  // Locks the directory for this process and finds its complete results.
  // Removes incomplete and damaged results; appends a message about each
  // damaged one to `damaged`. A file that cannot be read now is left where it
  // is. FAILED_PRECONDITION: the directory is no usable path or another
  // server's. UNAVAILABLE, RESOURCE_EXHAUSTED: something is wrong with this
  // machine.
  static absl::StatusOr<std::unique_ptr<ResultStore>> Open(
      const Options& options, std::vector<std::string>* damaged);
  ~ResultStore();

  // Reserves room for a result of up to `bytes` until it is finished.
  // RESOURCE_EXHAUSTED names the limit, what is used and what to do; it says
  // when to try again if that helps. Else as SpoolFile::Create. `budget` is the
  // user's.
  absl::StatusOr<std::shared_ptr<KeptResult>> Create(
      const ::qkscope::v1::SpoolHeader& header, int64_t bytes,
      const UserBudget& budget) ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends the result with its request's status; from then on it counts with the
  // bytes that it has.
  void Finish(KeptResult* result, const absl::Status& status)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // NOT_FOUND `request_id: no such result`, the same for a result that is
  // unknown, expired or another user's. nullopt stands for any user.
  absl::StatusOr<std::shared_ptr<KeptResult>> Find(
      const std::string& id, const std::optional<std::string>& user) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Lists results in order of creation. nullopt stands for all users.
  std::vector<std::shared_ptr<KeptResult>> List(
      const std::optional<std::string>& user) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Deletes the result, even while it is read. One that has expired is deleted
  // when nobody reads it any more.
  void Drop(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Duration ttl() const { return options_.ttl; }
  absl::Time Now() const { return options_.now(); }
  // A user's limits.
  KeptAmount MostOf(const UserBudget& budget) const;
  // What is kept: in all, and of each user who has results.
  KeptAmount Kept() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::map<std::string, KeptAmount> KeptByUser() const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Arrival = uint64_t;  // ascending in order of creation
  struct Entry {
    std::shared_ptr<KeptResult> result;  // nullptr: its file is being made
    std::string user;
    int64_t bytes = 0;  // that count
    std::optional<absl::Time> finished_at;
  };
  using Entries = std::map<Arrival, Entry>;
  using Results = std::vector<std::shared_ptr<KeptResult>>;

  explicit ResultStore(const Options& options);
  absl::Status Lock();
  absl::Status Recover(std::vector<std::string>* damaged);
  absl::Status RecoverFile(const std::string& id, Results* found,
                           std::vector<std::string>* damaged);
  bool HoldsFolder() const;
  void CheckFolder() ABSL_LOCKS_EXCLUDED(mutex_);
  void Loop() ABSL_LOCKS_EXCLUDED(mutex_);
  void Expire() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<Arrival> Reserve(const ::qkscope::v1::SpoolHeader& header,
                                  int64_t bytes, const UserBudget& budget)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckRoom(const std::string& user, int64_t bytes,
                         const UserBudget& budget) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Refuse(const std::string& message,
                      const std::optional<std::string>& user) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(const std::string& user, int64_t results, int64_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsExpired(const Entry& entry, absl::Time now) const;
  // Returns the result, which its caller removes from the disk.
  std::shared_ptr<KeptResult> Erase(Entries::iterator entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  SpoolFolder folder_;
  int lock_fd_ = -1;  // after Open, the thread's own
  mutable Mutex mutex_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Arrival arrivals_ ABSL_GUARDED_BY(mutex_) = 0;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Arrival> by_id_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<absl::Time, Arrival>> finished_ ABSL_GUARDED_BY(mutex_);
  KeptAmount kept_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, KeptAmount> kept_by_user_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_RESULTS_RESULT_STORE_H_
