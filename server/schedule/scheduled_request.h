// A request in the scheduler. It may submit more runs over time.
#ifndef QKSCOPE_SERVER_SCHEDULE_SCHEDULED_REQUEST_H_
#define QKSCOPE_SERVER_SCHEDULE_SCHEDULED_REQUEST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "engine/run/run.h"
#include "server/common/priority.h"
#include "server/common/run_room.h"
#include "server/common/user.h"
#include "server/schedule/usage_hold.h"

namespace qk {

class ScheduledRequest;

// Is told when a request is cancelled and when it ends. Requests own the
// listener, because they may outlive the scheduler.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  // Called without the request's lock.
  virtual void OnCancel(ScheduledRequest* request) = 0;
  // Called by the request's destructor.
  virtual void OnGone(ScheduledRequest* request) = 0;
};

// The facts about a request for lists and logs.
struct RequestInfo {
  std::string id;
  std::string method;
  std::string model;
  std::shared_ptr<const User> user;  // never null
  Priority priority = Priority::kInteractive;
  int arms = 0;
  int64_t prompt_tokens = 0;
};

struct ScheduledRun {
  // Owns the sink of `run`. Declared first, so that it outlives `run`.
  std::shared_ptr<void> keep_alive;
  std::unique_ptr<Run> run;
  int64_t prefill_rows = 0;  // of all arms
  int64_t memory_bytes = 0;  // an estimate of what it holds while it is active
  // Taken before the run gets device memory. nullptr: it needs none.
  // `keep_alive` owns it.
  RunRoom* room = nullptr;
  // Bounds on the bytes of its answer that the user's budget pays for.
  int64_t least_bytes = 0;
  int64_t most_bytes = 0;
  // Submit opens it for most_bytes; whoever sends the answer uses it up.
  // nullptr: nothing is sent.
  std::shared_ptr<UsageHold> answer;
  // Submit opens it for the expected device time.
  std::unique_ptr<UsageHold> device = std::make_unique<UsageHold>();
};

// Thread-safe.
class ScheduledRequest {
 public:
  // `on_position` receives the request's position among the waiting ones when
  // it changes; it is 0 for the next request and for a running one. It is
  // called under the scheduler's lock, so it must not block or call the
  // scheduler.
  ScheduledRequest(RequestInfo info, absl::Time deadline,
                   std::function<void(int)> on_position)
      : info_(std::move(info)),
        deadline_(deadline),
        on_position_(std::move(on_position)) {}
  // Must run when the request's call has ended. Until then the request counts
  // as in flight, even if its runs have ended and a slow client still reads
  // their results.
  ~ScheduledRequest();
  ScheduledRequest(const ScheduledRequest&) = delete;
  ScheduledRequest& operator=(const ScheduledRequest&) = delete;

  // Calls `on_cancel` once when the request is cancelled, on the cancelling
  // thread. If the request already was cancelled, calls it at once.
  void SetOnCancel(std::function<void(const absl::Status&)> on_cancel)
      ABSL_LOCKS_EXCLUDED(mutex_);

  const RequestInfo& info() const { return info_; }
  absl::Time deadline() const { return deadline_; }

  // Ends all runs with `reason`: waiting runs at once, others between two
  // steps. Only the first call has an effect.
  void Cancel(const absl::Status& reason) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status cancelled() const ABSL_LOCKS_EXCLUDED(mutex_);
  // InfiniteFuture: the request was not cancelled.
  absl::Time cancelled_at() const ABSL_LOCKS_EXCLUDED(mutex_);
  // When the first run was admitted to the device; InfiniteFuture before.
  absl::Time started() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Device time used so far.
  double device_seconds() const { return device_seconds_; }
  // Run::times of all runs so far.
  RunTimes times() const ABSL_LOCKS_EXCLUDED(mutex_);

  // --- For the scheduler only.

  // From now on Cancel cancels these runs, too, and tells `listener`. Fails
  // with the reason if the request was already cancelled.
  absl::Status AddRuns(const std::vector<ScheduledRun>& runs,
                       const std::shared_ptr<RequestListener>& listener)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // From now on Cancel does not touch the run.
  void RemoveRun(const Run* run) ABSL_LOCKS_EXCLUDED(mutex_);
  // Call when a run got its memory at `now`.
  void MarkStarted(absl::Time now) ABSL_LOCKS_EXCLUDED(mutex_);
  void Charge(double device_seconds) { device_seconds_ += device_seconds; }
  void TellPosition(int position) { on_position_(position); }

 private:
  const RequestInfo info_;
  const absl::Time deadline_;
  const std::function<void(int)> on_position_;
  std::atomic<double> device_seconds_ = 0;

  mutable Mutex mutex_;
  absl::Status cancelled_ ABSL_GUARDED_BY(mutex_);
  absl::Time cancelled_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Time started_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  std::vector<Run*> runs_ ABSL_GUARDED_BY(mutex_);  // alive
  RunTimes ended_ ABSL_GUARDED_BY(mutex_);          // of the others
  std::function<void(const absl::Status&)> on_cancel_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<RequestListener> listener_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_SCHEDULED_REQUEST_H_
