#include "server/calls/run_stream.h"

#include <utility>
#include <variant>
#include <vector>

#include "engine/base/check.h"
#include "server/calls/prepared_run.h"
#include "server/common/delay_point.h"
#include "server/common/guarded.h"

namespace qk {

RunStream::RunStream(const CallParts* call_parts, const RunParts* run_parts,
                     grpc::CallbackServerContext* context, const char* method,
                     ActivationSource source, Translate translate,
                     Convert convert)
    : EventStream(call_parts, context, method),
      run_parts_(run_parts),
      source_(source),
      translate_(translate),
      convert_(convert) {}

RunStream* RunStream::Start(const CallParts* call_parts,
                            const RunParts* run_parts,
                            grpc::CallbackServerContext* context,
                            const char* method, ActivationSource source,
                            const grpc::ByteBuffer& message,
                            Translate translate, Convert convert) {
  std::shared_ptr<RunStream> stream(new RunStream(
      call_parts, run_parts, context, method, source, translate, convert));
  stream->Accept(message, Budget::kNeeded,
                 [s = stream.get()](const grpc::ByteBuffer& bytes) {
                   return s->Begin(bytes);
                 });
  return stream.get();
}

absl::Status RunStream::Begin(const grpc::ByteBuffer& message) {
  std::vector<ScheduledRun> runs;
  QK_RETURN_IF_ERROR(Prepare(message, &runs));
  std::shared_ptr<ScheduledRequest> request;
  {
    MutexLock lock(&mutex_);
    request = request_;
  }
  return SubmitRuns(run_parts_->scheduler, request, std::move(runs));
}

absl::Status RunStream::Prepare(const grpc::ByteBuffer& message,
                                std::vector<ScheduledRun>* runs) {
  std::optional<ConvertContext> context;
  std::shared_ptr<const User> user;
  {
    MutexLock lock(&mutex_);
    if (end_.has_value()) return *end_;
    context.emplace(call_.convert_context());
    user = call_.user();
  }
  QK_ASSIGN_OR_RETURN(ConvertedRequest converted,
                      convert_(message, *context, [this](const pb::Input& in) {
                        MutexLock lock(&mutex_);
                        call_.KeepPrompt(in);
                      }));
  const std::string model = converted.model.name;
  const int64_t arms = static_cast<int64_t>(converted.spec.arms.size());
  const int64_t tokens = static_cast<int64_t>(converted.spec.tokens.size());
  const Priority priority = PriorityOf(converted.expanded.priority());
  const auto pump = [executor = run_parts_->executor, weak = weak_from_this()] {
    executor->Post([weak] {
      if (auto stream = weak.lock()) stream->Pump();
    });
  };
  QK_ASSIGN_OR_RETURN(
      PreparedRun prepared,
      PrepareRun(*run_parts_, *user, std::move(converted), source_, pump));
  MutexLock lock(&mutex_);
  if (end_.has_value()) return *end_;
  call_.model = model;
  call_.arms = arms;
  call_.prompt_tokens = tokens;
  activations_ = std::move(prepared.activations);
  queue_ = prepared.queue;
  answer_ = prepared.answer;
  memory_ = std::move(prepared.memory);
  request_ = call_.MakeRequest(
      priority, [queue = queue_](int p) { queue->PushPosition(p); });
  request_->SetOnCancel([executor = run_parts_->executor,
                         weak = weak_from_this()](const absl::Status& why) {
    executor->Post([weak, why] {
      if (auto stream = weak.lock()) stream->EndCancelledBy(why);
    });
  });
  DescribeRequest(request_, call_.id(), &prepared.encoder);
  encoder_.emplace(std::move(prepared.encoder));
  runs->push_back(std::move(prepared.scheduled));
  return absl::OkStatus();
}

void RunStream::OnWriteDone(bool ok) {
  const absl::Status thrown = Guarded("write done", [&] {
    DelayPoint("write_done");
    MutexLock lock(&mutex_);
    watch_.End();
    const int64_t bytes = static_cast<int64_t>(message_.Length());
    message_.Clear();
    queue_->Release(bytes);
    CountSent(*run_parts_, request_->info().priority, bytes, &call_);
    answer_->Use({0, bytes});
  });
  if (!thrown.ok()) return EndThrown(thrown, /*write=*/true);
  // If the write failed, the run must end, too.
  ok ? Pump() : EndCancelled();
}

void RunStream::OnDone() {
  const std::shared_ptr<EventStream> last = std::move(self_);
  MutexLock lock(&mutex_);
  if (queue_ != nullptr) queue_->Discard();
  if (answer_ != nullptr) answer_->UseUp();
}

bool RunStream::End(const absl::Status& reason) {
  std::shared_ptr<ScheduledRequest> request;
  std::shared_ptr<FrameQueue> queue;
  {
    MutexLock lock(&mutex_);
    if (end_.has_value()) return false;
    end_ = reason;
    request = request_;
    queue = queue_;
  }
  if (request != nullptr) request->Cancel(reason);
  if (queue != nullptr) queue->Discard();
  return true;
}

bool RunStream::NextMessage() {
  if (!encoder_.has_value()) return false;  // its turn has not come
  pb::AnalyzeEvent event;
  for (;;) {
    while (encoder_->Next(&event)) {
      std::optional<grpc::ByteBuffer> message = translate_(&event);
      if (!message.has_value()) continue;
      message_ = *std::move(message);
      return true;
    }
    if (encoder_->done()) {
      end_ = absl::OkStatus();
      return false;
    }
    std::optional<StreamItem> item = queue_->Pop();
    if (!item.has_value()) return false;
    if (const auto* end = std::get_if<RunEnd>(&*item)) {
      if (!end->status.ok()) {
        end_ = ToClientStatus(end->status);
        return false;
      }
      activations_.Finish();
    }
    if (const auto* frame = std::get_if<LayerFrame>(&*item)) {
      activations_.Add(*frame);
    }
    encoder_->Feed(*std::move(item));
  }
}

grpc::Status RunStream::FinishRecord() {
  if (encoder_.has_value()) {
    call_.generated_tokens = encoder_->generated_tokens();
    call_.SetPhases(*request_, encoder_->stream_seconds());
  }
  return call_.Finish(*end_);
}

}  // namespace qk
