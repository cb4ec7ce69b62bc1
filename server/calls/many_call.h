// AnalyzeMany: prompts in, events out. Prompts run together, a bounded number
// at a time; their events leave in the order the prompts came.
#ifndef QKSCOPE_SERVER_CALLS_MANY_CALL_H_
#define QKSCOPE_SERVER_CALLS_MANY_CALL_H_

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/calls/call_record.h"
#include "server/calls/server_core.h"
#include "server/calls/stream_call.h"
#include "server/events/aggregate.h"
#include "server/events/event_encoder.h"
#include "server/events/frame_queue.h"

namespace qk {

class ManyCall : public grpc::ServerBidiReactor<pb::AnalyzeManyRequest,
                                                pb::AnalyzeManyEvent>,
                 public StreamCall,
                 public std::enable_shared_from_this<ManyCall> {
 public:
  static ManyCall* Start(const ServerCore* core,
                         grpc::CallbackServerContext* context);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override { EndCancelled(); }
  void OnDone() override;

 private:
  struct Prompt {
    std::string id;
    absl::Status error;  // instead of everything below
    std::shared_ptr<FrameQueue> queue;
    pb::AnalyzeRequest expanded;
    std::optional<EventEncoder> encoder;
    std::vector<LayerFrame> frames;  // kept for the aggregate
  };

  // What came of the first prompt: an event, nothing yet, or its end.
  enum class Step { kWrite, kWait, kThrough };

  ManyCall(const ServerCore* core, grpc::CallbackServerContext* context);
  absl::Status Begin();
  bool End(const absl::Status& reason) override;
  void Pump() override;

  // With mutex_ held.
  void TakeMessage();
  void TakePrompt(const pb::AnalyzeManyPrompt& message);
  absl::Status Submit(const pb::AnalyzeManyPrompt& message, Prompt* prompt);
  bool WantsRead() const;
  bool NextEvent();
  Step StepFront();
  void Feed(Prompt* prompt, StreamItem item);
  void PopFront();
  bool NextAtEnd();
  grpc::Status FinishRecord();

  std::shared_ptr<ManyCall> self_;
  std::shared_ptr<ScheduledRequest> request_;
  std::shared_ptr<std::atomic<int>> position_ =
      std::make_shared<std::atomic<int>>(0);

  CallRecord call_;
  pb::AnalyzeManyRequest read_;
  bool reading_ = false;
  bool reads_done_ = false;
  std::optional<pb::AnalyzeManySpec> spec_;
  std::set<std::string> ids_;
  std::deque<Prompt> prompts_;
  // Refused for lack of room while others run: tried again as they end.
  std::optional<pb::AnalyzeManyPrompt> held_;
  // The server drains: ends the stream once its prompts are through.
  std::optional<absl::Status> closing_;

  pb::AnalyzeEvent analyze_event_;
  pb::AnalyzeManyEvent event_;
  FrameQueue* writing_queue_ = nullptr;  // whose event is being written
  Aggregator aggregator_;
  std::optional<std::deque<pb::Aggregate>> aggregates_;
  pb::AnalyzeRequest last_expanded_;  // arm names for the aggregate
  int64_t finished_prompts_ = 0;
  int64_t failed_prompts_ = 0;
  bool summary_sent_ = false;
  std::optional<absl::Status> end_;
  bool finished_ = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_MANY_CALL_H_
