// Handles AnalyzeMany: reads prompts and writes their events. A bounded number
// of prompts runs at a time; events are written in the order of the prompts.
#ifndef QKSCOPE_SERVER_CALLS_MANY_CALL_H_
#define QKSCOPE_SERVER_CALLS_MANY_CALL_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "qkscope/v1/analysis.pb.h"
#include "server/calls/baseline_of_prompts.h"
#include "server/calls/call_record.h"
#include "server/calls/server_core.h"
#include "server/calls/stream_call.h"
#include "server/events/aggregate.h"
#include "server/events/event_encoder.h"
#include "server/events/frame_queue.h"
#include "server/observe/activation_run.h"

namespace qk {

class ManyCall
    : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
      public StreamCall,
      public std::enable_shared_from_this<ManyCall> {
 public:
  static ManyCall* Start(const CallParts* call_parts, const RunParts* run_parts,
                         grpc::CallbackServerContext* context);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override { EndCancelled(); }
  void OnDone() override;

 private:
  struct Prompt {
    std::string id;
    absl::Status error;  // if not OK, the members below are unused
    std::shared_ptr<FrameQueue> queue;
    std::shared_ptr<UsageHold> answer;
    ByteLease memory;  // of the request
    pb::AnalyzeRequest expanded;
    ActivationRun activations;
    std::shared_ptr<ActivationModel> model;  // if it is for a baseline
    std::optional<EventEncoder> encoder;
    std::vector<LayerFrame> frames;  // for the aggregate
  };

  // The first prompt has an event to write, has none yet, or is done.
  enum class FrontState { kWrite, kWait, kDone };

  ManyCall(const CallParts* call_parts, const RunParts* run_parts,
           grpc::CallbackServerContext* context);
  absl::Status Begin() ABSL_LOCKS_EXCLUDED(mutex_);
  bool End(const absl::Status& reason) override;
  void Pump() override;

  // Reads the message when it is the user's turn on the host. `held`: it is the
  // prompt that was held.
  void PostMessage(const grpc::ByteBuffer& bytes, bool held)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status TakeMessage(const grpc::ByteBuffer& bytes, bool held)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status TakeSpec(pb::AnalyzeManySpec spec) ABSL_LOCKS_EXCLUDED(mutex_);
  // `bytes`: the message that has the prompt.
  void TakePrompt(const pb::AnalyzeManyPrompt& message,
                  const grpc::ByteBuffer& bytes, bool held)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CountPrompt(bool held) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckId(const std::string& id, bool held)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Submit(const pb::AnalyzeManyPrompt& message, Prompt* prompt)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool WantsRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Sets event_ to the next event. Returns false if there is none yet, or if
  // the stream is over; then it has set end_.
  bool NextEvent() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  FrontState AdvanceFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Feed(Prompt* prompt, StreamItem item)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PopFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // NextEvent once all prompts are done: the aggregate, then the summary.
  bool NextAtEnd() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes the prompts' mean the model's baseline when it is the user's turn on
  // the host, because writing a file may take a while.
  void PostBaseline() ABSL_LOCKS_EXCLUDED(mutex_);
  // Adds the tokens that the prompt's run has generated to the log line.
  void CountGenerated(const Prompt& prompt)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  grpc::Status FinishRecord() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RunParts* const run_parts_;
  std::shared_ptr<ManyCall> self_;
  std::shared_ptr<ScheduledRequest> request_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<std::atomic<int>> position_ =
      std::make_shared<std::atomic<int>>(0);

  CallRecord call_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer read_ ABSL_GUARDED_BY(mutex_);
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool reads_done_ ABSL_GUARDED_BY(mutex_) = false;
  bool working_ ABSL_GUARDED_BY(mutex_) = false;  // a message is with the host
  std::shared_ptr<const pb::AnalyzeManySpec> spec_ ABSL_GUARDED_BY(mutex_);
  int64_t prompts_read_ ABSL_GUARDED_BY(mutex_) = 0;
  // Of all prompts so far.
  absl::flat_hash_set<std::array<uint64_t, 2>> ids_ ABSL_GUARDED_BY(mutex_);
  std::deque<Prompt> prompts_ ABSL_GUARDED_BY(mutex_);
  // The message of a prompt that was refused with RESOURCE_EXHAUSTED while
  // others run. It is tried again whenever one of them ends.
  std::optional<grpc::ByteBuffer> held_ ABSL_GUARDED_BY(mutex_);
  bool try_held_ ABSL_GUARDED_BY(mutex_) = false;
  // Set when the server drains: the stream's status once its prompts are done.
  std::optional<absl::Status> closing_ ABSL_GUARDED_BY(mutex_);

  pb::AnalyzeEvent analyze_event_ ABSL_GUARDED_BY(mutex_);
  pb::AnalyzeManyEvent event_ ABSL_GUARDED_BY(mutex_);
  grpc::ByteBuffer message_ ABSL_GUARDED_BY(mutex_);  // in flight
  // Of the prompt that the event in flight came from.
  std::shared_ptr<FrameQueue> writing_queue_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<UsageHold> writing_answer_ ABSL_GUARDED_BY(mutex_);
  Aggregator aggregator_ ABSL_GUARDED_BY(mutex_);
  // What spec_->save_baseline() asks for. It is saved once it is complete.
  enum class BaselineState { kGrowing, kComplete, kPosted };
  BaselineOfPrompts baseline_ ABSL_GUARDED_BY(mutex_);
  BaselineState baseline_state_ ABSL_GUARDED_BY(mutex_) =
      BaselineState::kGrowing;
  std::optional<std::deque<pb::Aggregate>> aggregates_ ABSL_GUARDED_BY(mutex_);
  // Gives the aggregate the names of the arms.
  pb::AnalyzeRequest last_expanded_ ABSL_GUARDED_BY(mutex_);
  absl::Time first_event_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  int64_t finished_prompts_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t failed_prompts_ ABSL_GUARDED_BY(mutex_) = 0;
  bool summary_sent_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_CALLS_MANY_CALL_H_
