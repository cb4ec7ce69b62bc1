#include "server/calls/result_stream.h"

#include <utility>

#include "engine/base/check.h"
#include "qkscope/v1/analysis.grpc.pb.h"
#include "server/calls/kept_run.h"
#include "server/common/delay_point.h"
#include "server/common/guarded.h"
#include "server/convert/convert.h"
#include "server/convert/convert_fields.h"
#include "server/events/raw_message.h"

namespace qk {

ResultStream::ResultStream(const ServerCore* core,
                           grpc::CallbackServerContext* context,
                           const char* method)
    : EventStream(&core->call, context, method), core_(core) {}

ResultStream* ResultStream::Start(const std::shared_ptr<ResultStream>& stream,
                                  const absl::Status& begun) {
  stream->self_ = stream;
  stream->call_parts_->calls->Register(stream);
  if (!begun.ok()) stream->End(begun);
  stream->Pump();
  return stream.get();
}

ResultStream* ResultStream::GetResult(const ServerCore* core,
                                      grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer& request) {
  std::shared_ptr<ResultStream> stream(
      new ResultStream(core, context, "GetResult"));
  return Start(stream, Guarded("GetResult",
                               [&] { return stream->BeginResult(request); }));
}

ResultStream* ResultStream::Analyze(const ServerCore* core,
                                    grpc::CallbackServerContext* context,
                                    const pb::AnalyzeRequest& request) {
  std::shared_ptr<ResultStream> stream(
      new ResultStream(core, context, "Analyze"));
  return Start(stream, Guarded("Analyze",
                               [&] { return stream->BeginAnalyze(request); }));
}

absl::Status ResultStream::BeginResult(const grpc::ByteBuffer& bytes) {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(call_.Open());
  deadline_ = call_.deadline();
  pb::GetResultRequest request;
  QK_RETURN_IF_ERROR(ParseRaw(bytes, &request));
  if (request.from_seq() < 0) {
    return BadField("from_seq",
                    absl::StrCat("must be >= 0, got ", request.from_seq()));
  }
  if (core_->results.store == nullptr) {
    return absl::NotFoundError("request_id: no such result");
  }
  QK_ASSIGN_OR_RETURN(result_, core_->results.store->Find(request.request_id(),
                                                          call_.user()->alias));
  call_.model = result_->header().model();
  seq_ = request.from_seq();
  return absl::OkStatus();
}

absl::Status ResultStream::BeginAnalyze(const pb::AnalyzeRequest& request) {
  MutexLock lock(&mutex_);
  QK_RETURN_IF_ERROR(call_.Open());
  // The run has the same deadline, so it ends with the stream.
  deadline_ = call_.deadline();
  call_.KeepPrompt(request.input());
  QK_ASSIGN_OR_RETURN(ConvertedRequest converted,
                      ConvertAnalyze(request, call_.convert_context()));
  call_.model = converted.model.name;
  call_.arms = static_cast<int64_t>(converted.spec.arms.size());
  call_.prompt_tokens = static_cast<int64_t>(converted.spec.tokens.size());
  accepted_ = false;
  detached_ = request.detach();
  QK_ASSIGN_OR_RETURN(result_,
                      KeptRun::Start(*core_, call_, std::move(converted)));
  return absl::OkStatus();
}

void ResultStream::OnWriteDone(bool ok) {
  const absl::Status thrown = Guarded("write done", [&] {
    DelayPoint("write_done");
    MutexLock lock(&mutex_);
    watch_.End();
    const int64_t bytes = static_cast<int64_t>(message_.Length());
    message_.Clear();
    call_.streamed_bytes += bytes;
    core_->run.scheduler->ChargeBytes(*call_.user(), Priority::kInteractive,
                                      bytes);
    if (!ok && !end_.has_value()) end_ = CancelledReason(*context_);
  });
  thrown.ok() ? Pump() : EndThrown(thrown, /*write=*/true);
}

void ResultStream::PrepareNext() {
  core_->run.executor->Post([weak = weak_from_this()] {
    if (auto stream = weak.lock()) {
      static_cast<ResultStream*>(stream.get())->ReadAhead();
    }
  });
}

void ResultStream::ReadAhead() {
  MutexLock lock(&mutex_);
  if (ahead_.has_value() || end_.has_value() || detached_) return;
  auto next = Get();
  if (next.ok() && next->kind == KeptResult::Next::kEvent) {
    ahead_ = *std::move(next);
  }
}

absl::StatusOr<KeptResult::Next> ResultStream::Get() {
  if (ahead_.has_value()) return *std::exchange(ahead_, std::nullopt);
  auto next = result_->Get(
      seq_, [executor = core_->run.executor, weak = weak_from_this()] {
        executor->Post([weak] {
          if (auto stream = weak.lock()) stream->Pump();
        });
      });
  if (next.ok() && next->kind == KeptResult::Next::kEvent) ++seq_;
  return next;
}

bool ResultStream::NextMessage() {
  if (!std::exchange(accepted_, true)) {
    pb::AnalyzeEvent event;
    event.mutable_accepted()->set_request_id(call_.id());
    message_ = ToByteBuffer(event);
    return true;
  }
  if (detached_) {
    end_ = absl::OkStatus();
    return false;
  }
  auto next = Get();
  if (!next.ok()) {
    end_ = next.status();
  } else if (next->kind == KeptResult::Next::kEnd) {
    end_ = next->status;
  } else if (next->kind == KeptResult::Next::kEvent) {
    message_ = ToByteBuffer(std::move(next->event));
    return true;
  }
  return false;
}

}  // namespace qk
