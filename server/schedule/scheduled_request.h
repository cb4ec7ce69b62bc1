// One request in the scheduler, which may submit runs over time.
#ifndef QKSCOPE_SERVER_SCHEDULE_SCHEDULED_REQUEST_H_
#define QKSCOPE_SERVER_SCHEDULE_SCHEDULED_REQUEST_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/run/run.h"
#include "server/common/user.h"
#include "server/schedule/fair_share.h"

namespace qk {

class ScheduledRequest;

// What a request tells of its life. Outlives the scheduler with the requests
// that hold it.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  // Called without the request's lock.
  virtual void OnCancel(ScheduledRequest* request) = 0;
  // From its destructor.
  virtual void OnGone(ScheduledRequest* request) = 0;
};

// What lists and logs say of a request.
struct RequestInfo {
  std::string id;
  std::string method;
  std::string model;
  std::shared_ptr<const User> user;  // never null
  Priority priority = Priority::kInteractive;
  int arms = 0;
  int64_t prompt_tokens = 0;
};

// Thread-safe.
class ScheduledRequest {
 public:
  // `on_position`: the request's place among the waiting ones, 0 for the next
  // and for a running one. Called when it changes, under the scheduler's lock:
  // it must not block or call the scheduler.
  ScheduledRequest(RequestInfo info, absl::Time deadline,
                   std::function<void(int)> on_position)
      : info_(std::move(info)),
        deadline_(deadline),
        on_position_(std::move(on_position)) {}
  // Its call has ended: until then the request counts as in flight, also when
  // its runs are through and a slow reader has yet to take their results.
  ~ScheduledRequest();
  ScheduledRequest(const ScheduledRequest&) = delete;
  ScheduledRequest& operator=(const ScheduledRequest&) = delete;

  // Called once when the request is cancelled, on the cancelling thread; at
  // once if it was.
  void SetOnCancel(std::function<void(const absl::Status&)> on_cancel);

  const RequestInfo& info() const { return info_; }
  absl::Time deadline() const { return deadline_; }

  // Ends all its runs with `reason`: waiting ones at once, others between two
  // steps. Only the first call counts.
  void Cancel(const absl::Status& reason);
  absl::Status cancelled() const;
  // When it was cancelled; InfiniteFuture: it was not.
  absl::Time cancelled_at() const;
  // When its first run got onto the device; InfiniteFuture before.
  absl::Time started() const;
  // Of the device, so far.
  double device_seconds() const { return device_seconds_; }

 private:
  friend class Scheduler;

  const RequestInfo info_;
  const absl::Time deadline_;
  const std::function<void(int)> on_position_;
  std::atomic<double> device_seconds_ = 0;
  mutable std::mutex mutex_;
  absl::Status cancelled_;
  absl::Time cancelled_at_ = absl::InfiniteFuture();
  absl::Time started_ = absl::InfiniteFuture();
  std::vector<Run*> runs_;  // alive
  std::function<void(const absl::Status&)> on_cancel_;
  std::shared_ptr<RequestListener> listener_;  // the scheduler's
};

struct ScheduledRun {
  // Outlives `run`: its sink.
  std::shared_ptr<void> keep_alive;
  std::unique_ptr<Run> run;
  int64_t prefill_rows = 0;  // of all arms
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_SCHEDULED_REQUEST_H_
