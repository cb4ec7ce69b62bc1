#include "server/result_stream.h"

#include <utility>

#include "engine/check.h"
#include "qkscope/v1/analysis.grpc.pb.h"
#include "server/convert.h"
#include "server/convert_fields.h"
#include "server/delay_point.h"
#include "server/kept_run.h"

namespace qk {
namespace {

bool Fill(std::string event, pb::AnalyzeEvent* message) {
  return message->ParseFromString(event);
}

// The buffer takes the bytes over: nothing is copied.
bool Fill(std::string event, grpc::ByteBuffer* message) {
  auto* const owner = new std::string(std::move(event));
  const grpc::Slice slice(
      owner->data(), owner->size(),
      [](void* string) { delete static_cast<std::string*>(string); }, owner);
  *message = grpc::ByteBuffer(&slice, 1);
  return true;
}

}  // namespace

template <typename Message>
ResultStream<Message>::ResultStream(const ServerCore* core,
                                    grpc::CallbackServerContext* context,
                                    const char* method)
    : StreamCall(core, context), call_(core, context, method) {}

template <typename Message>
ResultStream<Message>* ResultStream<Message>::Start(
    std::shared_ptr<ResultStream> stream, const absl::Status& begun) {
  stream->self_ = stream;
  stream->core_->calls->Register(stream);
  if (!begun.ok()) stream->End(begun);
  stream->Pump();
  return stream.get();
}

template <typename Message>
ResultStream<Message>* ResultStream<Message>::GetResult(
    const ServerCore* core, grpc::CallbackServerContext* context,
    grpc::ByteBuffer request) {
  std::shared_ptr<ResultStream> stream(
      new ResultStream(core, context, "GetResult"));
  return Start(stream, stream->BeginResult(&request));
}

template <typename Message>
ResultStream<Message>* ResultStream<Message>::Analyze(
    const ServerCore* core, grpc::CallbackServerContext* context,
    const pb::AnalyzeRequest& request) {
  std::shared_ptr<ResultStream> stream(
      new ResultStream(core, context, "Analyze"));
  return Start(stream, stream->BeginAnalyze(request));
}

template <typename Message>
absl::Status ResultStream<Message>::BeginResult(grpc::ByteBuffer* bytes) {
  QK_RETURN_IF_ERROR(call_.Open());
  deadline_ = call_.deadline();
  pb::GetResultRequest request;
  if (!grpc::SerializationTraits<pb::GetResultRequest>::Deserialize(bytes,
                                                                    &request)
           .ok()) {
    return absl::InvalidArgumentError(
        "the message is not a qkscope.v1.GetResultRequest");
  }
  if (request.from_seq() < 0) {
    return BadField("from_seq",
                    absl::StrCat("must be >= 0, got ", request.from_seq()));
  }
  if (core_->results == nullptr) {
    return absl::NotFoundError("request_id: no such result");
  }
  QK_ASSIGN_OR_RETURN(
      result_, core_->results->Find(request.request_id(), call_.user()->alias));
  call_.model = result_->header().model();
  seq_ = request.from_seq();
  return absl::OkStatus();
}

template <typename Message>
absl::Status ResultStream<Message>::BeginAnalyze(
    const pb::AnalyzeRequest& request) {
  QK_RETURN_IF_ERROR(call_.Open());
  // The call's deadline is the request's; a stream past it has ended, too.
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
                      KeptRun::Start(core_, call_, std::move(converted)));
  return absl::OkStatus();
}

template <typename Message>
void ResultStream<Message>::OnWriteDone(bool ok) {
  DelayPoint("write_done");
  {
    std::lock_guard<std::mutex> lock(mutex_);
    watch_.End();
    call_.streamed_bytes += message_bytes_;
    core_->scheduler->ChargeBytes(*call_.user(), Priority::kInteractive,
                                  message_bytes_);
    if (!ok && !end_.has_value()) end_ = CancelledReason(*context_);
  }
  Pump();
}

template <typename Message>
bool ResultStream<Message>::End(const absl::Status& reason) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (end_.has_value()) return false;
  end_ = reason;
  return true;
}

template <typename Message>
void ResultStream<Message>::Pump() {
  std::optional<grpc::Status> finish;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (watch_.writing() || finished_) return;
    if (!end_.has_value() && NextMessage()) {
      watch_.Begin();
    } else if (end_.has_value()) {
      finished_ = true;
      finish = call_.Finish(*end_);
    } else {
      return;
    }
  }
  if (finish.has_value()) {
    DelayPoint("finish");
    this->Finish(*finish);
  } else {
    DelayPoint("write");
    this->StartWrite(&message_);
  }
}

template <typename Message>
bool ResultStream<Message>::NextMessage() {
  if (!std::exchange(accepted_, true)) {
    pb::AnalyzeEvent event;
    event.mutable_accepted()->set_request_id(call_.id());
    std::string bytes = event.SerializeAsString();
    message_bytes_ = static_cast<int64_t>(bytes.size());
    return Fill(std::move(bytes), &message_);
  }
  if (detached_) {
    end_ = absl::OkStatus();
    return false;
  }
  auto next = result_->Get(seq_, [core = core_, weak = this->weak_from_this()] {
    core->executor->Post([weak] {
      if (auto stream = weak.lock()) stream->Pump();
    });
  });
  if (!next.ok()) {
    end_ = next.status();
  } else if (next->kind == KeptResult::Next::kEnd) {
    end_ = next->status;
  } else if (next->kind == KeptResult::Next::kEvent) {
    message_bytes_ = static_cast<int64_t>(next->event.size());
    if (Fill(std::move(next->event), &message_)) {
      ++seq_;
      return true;
    }
    end_ = absl::DataLossError("request_id: the result is damaged");
  }
  return false;
}

template class ResultStream<pb::AnalyzeEvent>;
template class ResultStream<grpc::ByteBuffer>;

}  // namespace qk
