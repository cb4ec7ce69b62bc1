#include "server/calls/result_stream.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "qkscope/v1/analysis.grpc.pb.h"
#include "server/calls/kept_run.h"
#include "server/calls/prepared_run.h"
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

ResultStream* ResultStream::GetResult(const ServerCore* core,
                                      grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer& request) {
  std::shared_ptr<ResultStream> stream(
      new ResultStream(core, context, "GetResult"));
  stream->Accept(request, Budget::kNotNeeded,
                 [s = stream.get()](const grpc::ByteBuffer& bytes) {
                   return s->BeginResult(bytes);
                 });
  return stream.get();
}

ResultStream* ResultStream::Analyze(const ServerCore* core,
                                    grpc::CallbackServerContext* context,
                                    const grpc::ByteBuffer& request) {
  std::shared_ptr<ResultStream> stream(
      new ResultStream(core, context, "Analyze"));
  stream->Accept(request, Budget::kNeeded,
                 [s = stream.get()](const grpc::ByteBuffer& bytes) {
                   return s->BeginAnalyze(bytes);
                 });
  return stream.get();
}

absl::Status ResultStream::BeginResult(const grpc::ByteBuffer& bytes) {
  pb::GetResultRequest request;
  QK_RETURN_IF_ERROR(ParseRaw(bytes, &request));
  if (request.from_seq() < 0) {
    return BadField("from_seq",
                    absl::StrCat("must be >= 0, got ", request.from_seq()));
  }
  if (core_->results.store == nullptr) {
    return absl::NotFoundError("request_id: no such result");
  }
  MutexLock lock(&mutex_);
  if (end_.has_value()) return *end_;
  QK_ASSIGN_OR_RETURN(
      auto result,
      core_->results.store->Find(request.request_id(), call_.user()->alias));
  const KeptResult::State state = result->state();
  if (state.finished) {
    // At least this much is sent, unless the reader has most of it already.
    const int64_t rest =
        state.events > 0
            ? state.bytes *
                  std::max<int64_t>(0, state.events - request.from_seq()) /
                  state.events
            : 0;
    auto answer = core_->run.scheduler->HoldBytes(*call_.user(), rest);
    if (!answer.ok()) return ToClientStatus(answer.status());
    answer_ = *std::move(answer);
  }
  call_.model = result->header().model();
  ReadFrom(std::move(result), request.from_seq());
  return absl::OkStatus();
}

absl::Status ResultStream::BeginAnalyze(const grpc::ByteBuffer& bytes) {
  pb::AnalyzeRequest request;
  QK_RETURN_IF_ERROR(ParseRaw(bytes, &request));
  std::optional<ConvertContext> context;
  {
    MutexLock lock(&mutex_);
    if (end_.has_value()) return *end_;
    call_.KeepPrompt(request.input());
    context.emplace(call_.convert_context());
  }
  QK_ASSIGN_OR_RETURN(ConvertedRequest converted,
                      ConvertAnalyze(request, *context));
  KeptCall kept;
  std::shared_ptr<UsageHold> answer;
  if (!request.detach()) answer = std::make_shared<UsageHold>();
  {
    MutexLock lock(&mutex_);
    if (end_.has_value()) return *end_;
    call_.model = converted.model.name;
    call_.arms = static_cast<int64_t>(converted.spec.arms.size());
    call_.prompt_tokens = static_cast<int64_t>(converted.spec.tokens.size());
    kept = {call_.user(), call_.start(), call_.trace(),
            call_.MakeRequest(PriorityOf(converted.expanded.priority()),
                              [](int) {})};
    answer_ = answer;
  }
  QK_ASSIGN_OR_RETURN(
      auto result, KeptRun::Start(*core_, std::move(kept), std::move(converted),
                                  std::move(answer)));
  MutexLock lock(&mutex_);
  detached_ = request.detach();
  accepted_ = false;
  ReadFrom(std::move(result), 0);
  return absl::OkStatus();
}

void ResultStream::ReadFrom(std::shared_ptr<KeptResult> result,
                            int64_t from_seq) {
  reader_ = std::make_unique<ResultReader>(
      std::move(result), from_seq,
      [executor = core_->run.executor, weak = weak_from_this()] {
        executor->Post([weak] {
          if (auto stream = weak.lock()) stream->Pump();
        });
      });
}

void ResultStream::OnWriteDone(bool ok) {
  const absl::Status thrown = Guarded("write done", [&] {
    DelayPoint("write_done");
    MutexLock lock(&mutex_);
    watch_.End();
    const int64_t bytes = static_cast<int64_t>(message_.Length());
    message_.Clear();
    CountSent(core_->run, Priority::kInteractive, bytes, &call_);
    if (answer_ != nullptr) answer_->Use({0, bytes});
    if (!ok && !end_.has_value()) end_ = CancelledReason(*context_);
  });
  thrown.ok() ? Pump() : EndThrown(thrown, /*write=*/true);
}

void ResultStream::OnDone() {
  const std::shared_ptr<EventStream> last = std::move(self_);
  MutexLock lock(&mutex_);
  if (answer_ != nullptr) answer_->UseUp();
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
  if (reader_ == nullptr || ahead_.has_value() || end_.has_value() ||
      detached_) {
    return;
  }
  auto next = Get();
  if (next.ok() && next->kind == ResultReader::Event::kEvent) {
    ahead_ = *std::move(next);
  }
}

absl::StatusOr<ResultReader::Event> ResultStream::Get() {
  if (ahead_.has_value()) return *std::exchange(ahead_, std::nullopt);
  return reader_->Next();
}

bool ResultStream::NextMessage() {
  if (reader_ == nullptr) return false;  // its turn has not come
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
  } else if (next->kind == ResultReader::Event::kEnd) {
    end_ = next->status;
  } else if (next->kind == ResultReader::Event::kEvent) {
    message_ = ToByteBuffer(std::move(next->event));
    return true;
  }
  return false;
}

}  // namespace qk
