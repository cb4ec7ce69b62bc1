// Handles Score: makes one run per pair and submits all of them at once, so
// that the scheduler batches them.
#ifndef QKSCOPE_SERVER_CALLS_SCORE_CALL_H_
#define QKSCOPE_SERVER_CALLS_SCORE_CALL_H_

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "engine/base/mutex.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/calls/call_record.h"
#include "server/calls/call_tracker.h"
#include "server/calls/server_core.h"

namespace qk {

class ScoreCall : public grpc::ServerUnaryReactor,
                  public LiveCall,
                  public std::enable_shared_from_this<ScoreCall> {
 public:
  static ScoreCall* Start(const CallParts* call_parts,
                          const RunParts* run_parts,
                          grpc::CallbackServerContext* context,
                          const grpc::ByteBuffer& message,
                          grpc::ByteBuffer* response);

  void OnCancel() override;
  void OnDone() override;
  void Tick(absl::Time now) override;
  void Abort(const absl::Status& reason) override { End(reason); }

 private:
  class PairSink;

  ScoreCall(const CallParts* call_parts, const RunParts* run_parts,
            grpc::CallbackServerContext* context, grpc::ByteBuffer* response);
  absl::Status Accept(const grpc::ByteBuffer& message)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Runs when it is the user's turn on the host.
  absl::Status Begin(const grpc::ByteBuffer& message)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Does everything but submit `runs`.
  absl::Status Prepare(const grpc::ByteBuffer& message,
                       std::vector<ScheduledRun>* runs)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Stores the result of a pair whose run has ended.
  void PairDone(size_t index, const absl::Status& status,
                const ScoreResult& result) ABSL_LOCKS_EXCLUDED(mutex_);
  bool End(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes room for the answer, and fills the response.
  absl::Status MakeAnswer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CallParts* const call_parts_;
  const RunParts* const run_parts_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  std::shared_ptr<ScoreCall> self_;
  absl::Time deadline_ = absl::InfiniteFuture();  // constant once registered

  Mutex mutex_;
  // Prepare sets these.
  std::shared_ptr<ScheduledRequest> request_ ABSL_GUARDED_BY(mutex_);
  bool totals_only_ ABSL_GUARDED_BY(mutex_) = false;
  // What the answer may use of the user's budget, until the call is gone.
  std::shared_ptr<UsageHold> answer_ ABSL_GUARDED_BY(mutex_);
  ByteLease memory_ ABSL_GUARDED_BY(mutex_);  // of the request
  ByteLease room_ ABSL_GUARDED_BY(mutex_);    // of the answer
  CallRecord call_ ABSL_GUARDED_BY(mutex_);
  std::vector<pb::ScoreResult> results_ ABSL_GUARDED_BY(mutex_);
  size_t left_ ABSL_GUARDED_BY(mutex_) = 0;  // pairs still running
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_SCORE_CALL_H_
