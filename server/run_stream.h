// The answer to a call that runs one run: a stream of events, one write in
// flight, from the run's queue through an encoder.
#ifndef QKSCOPE_SERVER_RUN_STREAM_H_
#define QKSCOPE_SERVER_RUN_STREAM_H_

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "engine/check.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/call_record.h"
#include "server/delay_point.h"
#include "server/event_encoder.h"
#include "server/prepared_run.h"
#include "server/server_core.h"
#include "server/stream_call.h"

namespace qk {

// Event: AnalyzeEvent, or another message that `translate` makes of it.
template <typename Event>
class RunStream : public grpc::ServerWriteReactor<Event>,
                  public StreamCall,
                  public std::enable_shared_from_this<RunStream<Event>> {
 public:
  using Convert = std::function<absl::StatusOr<ConvertedRequest>(
      const ConvertContext& context)>;
  // Makes an Event of the encoder's; false: there is none for this one.
  using Translate = bool (*)(pb::AnalyzeEvent* from, Event* to);

  // The reactor lives until gRPC is done with it.
  static RunStream* Start(const ServerCore* core,
                          grpc::CallbackServerContext* context,
                          const char* method, Translate translate,
                          const pb::Input& input, const Convert& convert) {
    auto stream = std::shared_ptr<RunStream>(
        new RunStream(core, context, method, translate));
    stream->self_ = stream;
    const absl::Status status = stream->Begin(input, convert);
    if (!status.ok()) stream->Abort(status);
    stream->Pump();
    return stream.get();
  }

  void OnWriteDone(bool ok) override {
    DelayPoint("write_done");
    {
      std::lock_guard<std::mutex> lock(mutex_);
      watch_.End();
      const int64_t bytes = static_cast<int64_t>(event_.ByteSizeLong());
      queue_->Release(bytes);
      core_->scheduler->ChargeBytes(*call_.user(), request_->info().priority,
                                    bytes);
    }
    // What is left of the run is to end, too.
    ok ? Pump() : this->EndCancelled();
  }

  void OnCancel() override { this->EndCancelled(); }

  void OnDone() override {
    std::shared_ptr<RunStream> last = std::move(self_);
    if (queue_ != nullptr) queue_->Discard();
  }

 private:
  RunStream(const ServerCore* core, grpc::CallbackServerContext* context,
            const char* method, Translate translate)
      : StreamCall(core, context),
        translate_(translate),
        call_(core, context, method) {}

  absl::Status Begin(const pb::Input& input, const Convert& convert) {
    QK_RETURN_IF_ERROR(call_.Open());
    deadline_ = call_.deadline();
    call_.KeepPrompt(input);
    QK_ASSIGN_OR_RETURN(ConvertedRequest request,
                        convert(call_.convert_context()));
    call_.model = request.model.name;
    call_.arms = static_cast<int64_t>(request.spec.arms.size());
    call_.prompt_tokens = static_cast<int64_t>(request.spec.tokens.size());
    expanded_ = request.expanded;
    const auto pump = [core = core_, weak = this->weak_from_this()] {
      core->executor->Post([weak] {
        if (auto stream = weak.lock()) stream->Pump();
      });
    };
    QK_ASSIGN_OR_RETURN(PreparedRun prepared,
                        PrepareRun(*core_, std::move(request), pump));
    queue_ = prepared.queue;
    request_ =
        call_.MakeRequest(PriorityOf(expanded_.priority()),
                          [queue = queue_](int p) { queue->PushPosition(p); });
    request_->SetOnCancel(
        [core = core_, weak = this->weak_from_this()](const absl::Status& why) {
          core->executor->Post([weak, why] {
            if (auto stream = weak.lock()) stream->Abort(why);
          });
        });
    BelongsTo(request_, call_.id(), &prepared.encoder);
    encoder_.emplace(std::move(prepared.encoder));
    core_->calls->Register(this->weak_from_this());
    std::vector<ScheduledRun> runs;
    runs.push_back(std::move(prepared.scheduled));
    return SubmitRuns(*core_, request_, std::move(runs));
  }

  bool End(const absl::Status& reason) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (end_.has_value()) return false;
      end_ = reason;
    }
    if (request_ != nullptr) request_->Cancel(reason);
    if (queue_ != nullptr) queue_->Discard();
    return true;
  }

  void Pump() override {
    std::optional<grpc::Status> finish;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (watch_.writing() || finished_) return;
      if (!end_.has_value() && NextEvent()) {
        watch_.Begin();
      } else if (end_.has_value()) {
        finished_ = true;
        finish = FinishRecord();
      } else {
        return;
      }
    }
    if (finish.has_value()) {
      DelayPoint("finish");
      this->Finish(*finish);
    } else {
      DelayPoint("write");
      this->StartWrite(&event_);
    }
  }

  // Makes event_; false: nothing to write now. Sets end_ at the end.
  bool NextEvent() {
    for (;;) {
      while (encoder_->Next(&analyze_event_)) {
        if (translate_(&analyze_event_, &event_)) return true;
      }
      if (encoder_->done()) {
        end_ = absl::OkStatus();
        return false;
      }
      std::optional<StreamItem> item = queue_->Pop();
      if (!item.has_value()) return false;
      if (const auto* end = std::get_if<RunEnd>(&*item);
          end != nullptr && !end->status.ok()) {
        end_ = EndStatus(end->status);
        return false;
      }
      if (const auto* frame = std::get_if<LayerFrame>(&*item)) {
        CountStatistics(*core_, expanded_, *frame);
      }
      encoder_->Feed(*std::move(item));
    }
  }

  grpc::Status FinishRecord() {
    if (encoder_.has_value()) {
      call_.streamed_bytes = encoder_->streamed_bytes();
      call_.generated_tokens = encoder_->generated_tokens();
    }
    if (request_ != nullptr && request_->started() < absl::InfiniteFuture()) {
      call_.queue_seconds =
          absl::ToDoubleSeconds(request_->started() - call_.start());
    }
    return call_.Finish(*end_);
  }

  const Translate translate_;
  std::shared_ptr<RunStream> self_;

  // Set by Begin.
  pb::AnalyzeRequest expanded_;
  std::shared_ptr<FrameQueue> queue_;
  std::shared_ptr<ScheduledRequest> request_;

  CallRecord call_;
  std::optional<EventEncoder> encoder_;
  pb::AnalyzeEvent analyze_event_;
  Event event_;
  bool finished_ = false;
  std::optional<absl::Status> end_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_RUN_STREAM_H_
