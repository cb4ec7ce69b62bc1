// A request whose events go into the result store instead of into a stream:
// it goes on whatever becomes of its readers.
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
#include "server/results/result_store.h"

namespace qk {

class KeptRun : public std::enable_shared_from_this<KeptRun> {
 public:
  // Submits the request under the call's id, user and deadline; the result's
  // first event is there when the run has begun. FAILED_PRECONDITION: the
  // server keeps no results.
  static absl::StatusOr<std::shared_ptr<KeptResult>> Start(
      const ServerCore& core, const CallRecord& call, ConvertedRequest request);
  ~KeptRun();

 private:
  explicit KeptRun(const ServerCore& core)
      : call_parts_(&core.call), run_parts_(&core.run) {}
  // Writes what there is. On the store's executor; one at a time.
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CallParts* const call_parts_;
  const RunParts* const run_parts_;
  // Set by Start before Drain can be called.
  std::string id_;
  std::shared_ptr<const User> user_;
  Priority priority_ = Priority::kInteractive;
  pb::AnalyzeRequest expanded_;
  std::shared_ptr<KeptResult> result_;
  std::shared_ptr<ScheduledRequest> request_;

  Mutex mutex_;
  std::shared_ptr<FrameQueue> queue_ ABSL_GUARDED_BY(mutex_);
  std::optional<EventEncoder> encoder_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_KEPT_RUN_H_
