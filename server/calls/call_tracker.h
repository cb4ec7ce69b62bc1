// Tracks the calls in progress: shutdown waits for them or aborts them, and a
// timer lets them check their time limits.
#ifndef QKSCOPE_SERVER_CALLS_CALL_TRACKER_H_
#define QKSCOPE_SERVER_CALLS_CALL_TRACKER_H_

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"

namespace qk {

// A call that outlives its handler.
class LiveCall {
 public:
  virtual ~LiveCall() = default;
  // Checks the call's time limits. Called several times per
  // Limits::write_stall_timeout_ms.
  virtual void Tick(absl::Time now) = 0;
  // Ends the call with `reason`. May return before the call has ended.
  virtual void Abort(const absl::Status& reason) = 0;
};

// Thread-safe.
class CallTracker {
 public:
  explicit CallTracker(absl::Duration tick);
  ~CallTracker();

  // Fails with UNAVAILABLE `server is shutting down` after StopAdmission.
  absl::Status CheckOpen() const;
  void Register(std::weak_ptr<LiveCall> call);
  void CallStarted();
  void CallEnded();

  void StopAdmission() { draining_ = true; }
  bool draining() const { return draining_; }
  // Returns false if the deadline came first.
  bool WaitUntilIdle(absl::Time deadline);
  void AbortAll(const absl::Status& reason);

 private:
  std::vector<std::shared_ptr<LiveCall>> Alive();
  void Loop();

  const absl::Duration tick_;
  std::atomic<bool> draining_ = false;
  Mutex mutex_;
  CondVar changed_;
  int active_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::weak_ptr<LiveCall>> calls_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_CALL_TRACKER_H_
