// A Score: one run per pair, all submitted at once and batched by the
// scheduler.
#ifndef QKSCOPE_SERVER_CALLS_SCORE_CALL_H_
#define QKSCOPE_SERVER_CALLS_SCORE_CALL_H_

#include <memory>
#include <mutex>
#include <vector>

#include "grpcpp/server_context.h"
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
  static ScoreCall* Start(const ServerCore* core,
                          grpc::CallbackServerContext* context,
                          const pb::ScoreRequest& request,
                          pb::ScoreResponse* response);

  void OnCancel() override;
  void OnDone() override;
  void Tick(absl::Time) override {}
  void Abort(const absl::Status& reason) override { End(reason); }

 private:
  class PairSink;

  ScoreCall(const ServerCore* core, grpc::CallbackServerContext* context,
            pb::ScoreResponse* response);
  absl::Status Begin(const pb::ScoreRequest& request);
  // A pair's run is over.
  void PairDone(size_t index, const absl::Status& status,
                const ScoreResult& result);
  bool End(const absl::Status& status);

  const ServerCore* const core_;
  grpc::CallbackServerContext* const context_;
  pb::ScoreResponse* const response_;
  std::shared_ptr<ScoreCall> self_;
  std::shared_ptr<ScheduledRequest> request_;

  std::mutex mutex_;
  CallRecord call_;
  std::vector<pb::ScoreResult> results_;
  size_t left_ = 0;
  bool finished_ = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_SCORE_CALL_H_
