#include "server/calls/many_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "server/calls/prepared_run.h"
#include "server/common/delay_point.h"
#include "server/common/guarded.h"
#include "server/common/text.h"
#include "server/convert/convert_fields.h"

namespace qk {
namespace {

// How many prompts of one stream may run or wait to be written. This is enough
// to fill a batch, and bounds the memory of a stream.
constexpr size_t kWindow = 16;
constexpr size_t kMaxIdBytes = 128;

}  // namespace

ManyCall::ManyCall(const CallParts* call_parts, const RunParts* run_parts,
                   grpc::CallbackServerContext* context)
    : StreamCall(call_parts, context),
      run_parts_(run_parts),
      call_(call_parts, context, "AnalyzeMany") {}

ManyCall* ManyCall::Start(const CallParts* call_parts,
                          const RunParts* run_parts,
                          grpc::CallbackServerContext* context) {
  auto call =
      std::shared_ptr<ManyCall>(new ManyCall(call_parts, run_parts, context));
  call->self_ = call;
  const absl::Status status =
      Guarded("AnalyzeMany", [&] { return call->Begin(); });
  if (!status.ok()) call->End(status);
  call->Pump();
  return call.get();
}

absl::Status ManyCall::Begin() {
  {
    MutexLock lock(&mutex_);
    QK_RETURN_IF_ERROR(call_.Open(DeadlineRule::kClient));
    deadline_ = call_.deadline();
  }
  call_parts_->calls->Register(weak_from_this());
  return absl::OkStatus();
}

void ManyCall::OnReadDone(bool ok) {
  const absl::Status thrown = Guarded("read done", [&] {
    MutexLock lock(&mutex_);
    reading_ = false;
    if (!ok) {
      reads_done_ = true;
    } else if (!end_.has_value()) {
      TakeMessage();
    }
  });
  thrown.ok() ? Pump() : EndThrown(thrown, /*write=*/false);
}

void ManyCall::TakeMessage() {
  const bool is_spec = read_.has_spec();
  if (is_spec == spec_.has_value()) {
    end_ = is_spec ? BadField("spec", "is allowed only in the first message")
                   : BadField("spec", "must be in the first message");
    return;
  }
  if (!is_spec) {
    if (!read_.has_prompt()) {
      end_ = BadField("prompt", "must be set");
      return;
    }
    TakePrompt(read_.prompt());
    return;
  }
  const absl::Status status =
      CheckManySpec(read_.spec(), call_.convert_context());
  if (!status.ok()) {
    end_ = status;
    return;
  }
  spec_ = std::move(*read_.mutable_spec());
  call_.model = spec_->request().model();
  call_.arms = std::max(1, spec_->request().arms_size());
  if (!spec_->request().has_priority()) {
    spec_->mutable_request()->set_priority(pb::BATCH);
  }
  request_ =
      call_.MakeRequest(PriorityOf(spec_->request().priority()),
                        [position = position_](int p) { *position = p; });
  request_->SetOnCancel([executor = run_parts_->executor,
                         weak = weak_from_this()](const absl::Status& why) {
    executor->Post([weak, why] {
      if (auto call = weak.lock()) call->Abort(why);
    });
  });
}

void ManyCall::TakePrompt(const pb::AnalyzeManyPrompt& message) {
  Prompt prompt;
  prompt.id = message.id();
  if (prompt.id.empty() || prompt.id.size() > kMaxIdBytes) {
    prompt.error = BadField(
        "prompt.id",
        absl::StrCat(prompt.id.size(), " bytes, must be 1 to ", kMaxIdBytes));
  } else if (!held_.has_value() && !ids_.insert(prompt.id).second) {
    prompt.error = BadField(
        "prompt.id", absl::StrCat("'", Echo(prompt.id), "' is used twice"));
  } else {
    prompt.error = Submit(message, &prompt);
  }
  if (absl::IsUnavailable(prompt.error) && call_parts_->calls->draining()) {
    closing_ = prompt.error;
    return;
  }
  const bool others =
      std::any_of(prompts_.begin(), prompts_.end(),
                  [](const Prompt& other) { return other.error.ok(); });
  if (absl::IsResourceExhausted(prompt.error) && others) {
    held_ = message;
    return;
  }
  held_.reset();
  prompts_.push_back(std::move(prompt));
}

absl::Status ManyCall::Submit(const pb::AnalyzeManyPrompt& message,
                              Prompt* prompt) {
  QK_RETURN_IF_ERROR(call_parts_->calls->CheckOpen());
  QK_ASSIGN_OR_RETURN(
      ConvertedRequest request,
      ConvertPrompt(*spec_, message.input(), call_.convert_context()));
  const int64_t tokens = static_cast<int64_t>(request.spec.tokens.size());
  prompt->expanded = request.expanded;
  const auto wake = [executor = run_parts_->executor, weak = weak_from_this()] {
    executor->Post([weak] {
      if (auto call = weak.lock()) call->Pump();
    });
  };
  QK_ASSIGN_OR_RETURN(PreparedRun prepared,
                      PrepareRun(*run_parts_, std::move(request), wake));
  prompt->queue = prepared.queue;
  DescribeRequest(request_, absl::StrCat(call_.id(), "/", message.id()),
                  &prepared.encoder);
  prompt->encoder.emplace(std::move(prepared.encoder));
  prompt->queue->PushPosition(*position_);
  std::vector<ScheduledRun> runs;
  runs.push_back(std::move(prepared.scheduled));
  QK_RETURN_IF_ERROR(
      SubmitRuns(run_parts_->scheduler, request_, std::move(runs)));
  call_.KeepPrompt(message.input());
  call_.prompt_tokens += tokens;
  return absl::OkStatus();
}

void ManyCall::OnWriteDone(bool ok) {
  const absl::Status thrown = Guarded("write done", [&] {
    DelayPoint("write_done");
    MutexLock lock(&mutex_);
    watch_.End();
    if (writing_queue_ != nullptr) {
      const int64_t bytes = static_cast<int64_t>(event_.ByteSizeLong());
      writing_queue_->Release(bytes);
      run_parts_->scheduler->ChargeBytes(*call_.user(),
                                         request_->info().priority, bytes);
      writing_queue_ = nullptr;
    }
    if (!ok && !end_.has_value()) end_ = CancelledReason(*context_);
  });
  thrown.ok() ? Pump() : EndThrown(thrown, /*write=*/true);
}

void ManyCall::OnDone() {
  std::shared_ptr<ManyCall> last = std::move(self_);
  MutexLock lock(&mutex_);
  for (Prompt& prompt : prompts_) {
    if (prompt.queue != nullptr) prompt.queue->Discard();
  }
}

bool ManyCall::End(const absl::Status& reason) {
  std::shared_ptr<ScheduledRequest> request;
  {
    MutexLock lock(&mutex_);
    if (end_.has_value()) return false;
    end_ = reason;
    request = request_;
  }
  if (request != nullptr) request->Cancel(reason);
  return true;
}

void ManyCall::Pump() {
  bool read = false, write = false;
  std::optional<grpc::Status> finish;
  std::shared_ptr<ScheduledRequest> request;
  {
    MutexLock lock(&mutex_);
    if (finished_) return;
    request = request_;
    if (!watch_.writing()) {
      if (!end_.has_value()) {
        const absl::Status thrown =
            Guarded("stream", [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
              write = NextEvent();
            });
        if (!thrown.ok()) end_ = thrown;
      }
      if (write) watch_.Begin();
      if (!write && end_.has_value()) {
        finished_ = true;
        finish = FinishRecord();
      }
    }
    read = !finished_ && WantsRead();
    if (read) reading_ = true;
  }
  if (finish.has_value()) {
    if (request != nullptr && !finish->ok()) {
      request->Cancel(absl::CancelledError(finish->error_message()));
    }
    DelayPoint("finish");
    Finish(*finish);
    return;
  }
  if (read) StartRead(&read_);
  if (!write) return;
  const absl::Status thrown = Guarded("write", [] { DelayPoint("write"); });
  if (!thrown.ok()) return EndThrown(thrown, /*write=*/true);
  StartWrite(&event_);
}

bool ManyCall::WantsRead() const {
  return !reading_ && !reads_done_ && !held_.has_value() &&
         !closing_.has_value() && !end_.has_value() &&
         prompts_.size() < kWindow;
}

grpc::Status ManyCall::FinishRecord() {
  if (request_ != nullptr && request_->started() < absl::InfiniteFuture()) {
    call_.queue_seconds =
        absl::ToDoubleSeconds(request_->started() - call_.start());
  }
  return call_.Finish(*end_);
}

}  // namespace qk
