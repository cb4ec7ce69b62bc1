// The calls in progress: who is there at shutdown, and whose reader stands
// still.
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

// A call that lasts longer than its handler.
class LiveCall {
 public:
  virtual ~LiveCall() = default;
  // Looks at its own time limits; called several times per stall timeout.
  virtual void Tick(absl::Time now) = 0;
  // Ends with `reason`, soon.
  virtual void Abort(const absl::Status& reason) = 0;
};

// Thread-safe.
class CallTracker {
 public:
  explicit CallTracker(absl::Duration tick);
  ~CallTracker();

  // UNAVAILABLE `server is shutting down` when it is.
  absl::Status CheckOpen() const;
  void Register(std::weak_ptr<LiveCall> call);
  void CallStarted();
  void CallEnded();

  void StopAdmission() { draining_ = true; }
  bool draining() const { return draining_; }
  // False: the deadline came first.
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
