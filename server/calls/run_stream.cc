#include "server/calls/run_stream.h"

#include <utility>
#include <variant>
#include <vector>

#include "absl/time/clock.h"
#include "engine/base/check.h"
#include "server/calls/prepared_run.h"
#include "server/common/delay_point.h"
#include "server/common/guarded.h"

namespace qk {

RunStream::RunStream(const CallParts* call_parts, const RunParts* run_parts,
                     grpc::CallbackServerContext* context, const char* method,
                     Translate translate)
    : EventStream(call_parts, context, method),
      run_parts_(run_parts),
      translate_(translate) {}

RunStream* RunStream::Start(const CallParts* call_parts,
                            const RunParts* run_parts,
                            grpc::CallbackServerContext* context,
                            const char* method, Translate translate,
                            const pb::Input& input, const Convert& convert) {
  std::shared_ptr<RunStream> stream(
      new RunStream(call_parts, run_parts, context, method, translate));
  stream->self_ = stream;
  const absl::Status status =
      Guarded(method, [&] { return stream->Begin(input, convert); });
  if (!status.ok()) stream->Abort(status);
  stream->Pump();
  return stream.get();
}

absl::Status RunStream::Begin(const pb::Input& input, const Convert& convert) {
  std::vector<ScheduledRun> runs;
  QK_RETURN_IF_ERROR(Prepare(input, convert, &runs));
  call_parts_->calls->Register(weak_from_this());
  return SubmitRuns(run_parts_->scheduler, request_, std::move(runs));
}

absl::Status RunStream::Prepare(const pb::Input& input, const Convert& convert,
                                std::vector<ScheduledRun>* runs) {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(call_.Open());
  deadline_ = call_.deadline();
  call_.KeepPrompt(input);
  QK_ASSIGN_OR_RETURN(ConvertedRequest request,
                      convert(call_.convert_context()));
  call_.model = request.model.name;
  call_.arms = static_cast<int64_t>(request.spec.arms.size());
  call_.prompt_tokens = static_cast<int64_t>(request.spec.tokens.size());
  expanded_ = request.expanded;
  const auto pump = [executor = run_parts_->executor, weak = weak_from_this()] {
    executor->Post([weak] {
      if (auto stream = weak.lock()) stream->Pump();
    });
  };
  QK_ASSIGN_OR_RETURN(PreparedRun prepared,
                      PrepareRun(*run_parts_, std::move(request), pump));
  queue_ = prepared.queue;
  request_ =
      call_.MakeRequest(PriorityOf(expanded_.priority()),
                        [queue = queue_](int p) { queue->PushPosition(p); });
  request_->SetOnCancel([executor = run_parts_->executor,
                         weak = weak_from_this()](const absl::Status& why) {
    executor->Post([weak, why] {
      if (auto stream = weak.lock()) stream->Abort(why);
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
    run_parts_->scheduler->ChargeBytes(*call_.user(), request_->info().priority,
                                       bytes);
  });
  if (!thrown.ok()) return EndThrown(thrown, /*write=*/true);
  // If the write failed, the run must end, too.
  ok ? Pump() : EndCancelled();
}

void RunStream::OnDone() {
  const std::shared_ptr<EventStream> last = std::move(self_);
  if (queue_ != nullptr) queue_->Discard();
}

bool RunStream::End(const absl::Status& reason) {
  if (!EventStream::End(reason)) return false;
  if (request_ != nullptr) request_->Cancel(reason);
  if (queue_ != nullptr) queue_->Discard();
  return true;
}

bool RunStream::NextMessage() {
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
    if (const auto* end = std::get_if<RunEnd>(&*item);
        end != nullptr && !end->status.ok()) {
      end_ = ToClientStatus(end->status);
      return false;
    }
    if (const auto* frame = std::get_if<LayerFrame>(&*item)) {
      CountStatistics(expanded_, *frame, run_parts_->metrics);
    }
    encoder_->Feed(*std::move(item));
  }
}

grpc::Status RunStream::FinishRecord() {
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

}  // namespace qk
