// A request whose events go to the result store instead of a stream. It
// continues even if all its readers are gone.
#ifndef QKSCOPE_SERVER_CALLS_KEPT_RUN_H_
#define QKSCOPE_SERVER_CALLS_KEPT_RUN_H_

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/mutex.h"
#include "server/calls/call_record.h"
#include "server/calls/prepared_run.h"
#include "server/calls/server_core.h"
#include "server/convert/convert.h"
#include "server/events/event_encoder.h"
#include "server/observe/activation_run.h"
#include "server/results/result_store.h"

namespace qk {

// The call that a run belongs to.
struct KeptCall {
  std::shared_ptr<const User> user;
  absl::Time start;
  std::optional<TraceParent> trace;
  std::shared_ptr<ScheduledRequest> request;
};

class KeptRun : public std::enable_shared_from_this<KeptRun> {
 public:
  // Submits the request with the call's id, user and deadline. The result's
  // first event arrives when the run has started. `answer`: of the stream that
  // sends it now; nullptr: none does. Fails with
  // FAILED_PRECONDITION if the server keeps no results.
  static absl::StatusOr<std::shared_ptr<KeptResult>> Start(
      const ServerCore& core, KeptCall call, ConvertedRequest request,
      std::shared_ptr<UsageHold> answer);
  ~KeptRun();

 private:
  explicit KeptRun(const ServerCore& core)
      : call_parts_(&core.call), store_(core.results.store) {}
  // Writes all events that are available. Runs on the store's executor.
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);
  void KeepEvents() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CallParts* const call_parts_;
  ResultStore* const store_;
  // Start sets these before Drain can be called.
  std::string id_;
  std::shared_ptr<const User> user_;
  absl::Time start_;  // of its call
  std::optional<TraceParent> trace_;
  std::shared_ptr<KeptResult> result_;
  std::shared_ptr<ScheduledRequest> request_;
  ByteLease memory_;

  Mutex mutex_;
  std::shared_ptr<FrameQueue> queue_ ABSL_GUARDED_BY(mutex_);
  std::optional<EventEncoder> encoder_ ABSL_GUARDED_BY(mutex_);
  ActivationRun activations_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_KEPT_RUN_H_
