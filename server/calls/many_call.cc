#include "server/calls/many_call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/monotonic.h"
#include "engine/base/sha256.h"
#include "server/calls/post_work.h"
#include "server/calls/prepared_run.h"
#include "server/common/delay_point.h"
#include "server/common/guarded.h"
#include "server/common/text.h"
#include "server/convert/convert_fields.h"
#include "server/events/raw_message.h"

namespace qk {
namespace {

// How many prompts of one stream may run or wait to be written. This is enough
// to fill a batch, and bounds the memory of a stream.
constexpr size_t kWindow = 16;
constexpr size_t kMaxIdBytes = 128;

// What is remembered of an id, in 16 bytes: two ids with the same digest would
// be a collision of SHA-256's first half.
std::array<uint64_t, 2> DigestOf(const std::string& id) {
  Sha256 sha256;
  sha256.Update(id.data(), id.size());
  const std::string hex = sha256.FinishHex();
  std::array<uint64_t, 2> out = {};
  for (size_t i = 0; i < out.size(); ++i) {
    QK_CHECK(absl::SimpleHexAtoi(hex.substr(16 * i, 16), &out[i]));
  }
  return out;
}

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
  grpc::ByteBuffer bytes;
  {
    MutexLock lock(&mutex_);
    reading_ = false;
    if (!ok) reads_done_ = true;
    working_ = ok && !end_.has_value();
    if (working_) bytes.Swap(&read_);
    ok = working_;
  }
  ok ? PostMessage(bytes, false) : Pump();
}

void ManyCall::PostMessage(const grpc::ByteBuffer& bytes, bool held) {
  std::shared_ptr<const User> user;
  {
    MutexLock lock(&mutex_);
    user = call_.user();
  }
  // Prompts of a used-up budget are refused one by one.
  const auto call = shared_from_this();
  const absl::Status posted = PostBegin(
      *call_parts_, std::move(user), bytes, Budget::kNotNeeded,
      [call, bytes, held] { return call->TakeMessage(bytes, held); },
      [call](const absl::Status& status) {
        {
          MutexLock lock(&call->mutex_);
          call->working_ = false;
        }
        status.ok() ? call->Pump() : call->Refuse(status);
      });
  if (!posted.ok()) Refuse(posted);
}

absl::Status ManyCall::TakeMessage(const grpc::ByteBuffer& bytes, bool held) {
  pb::AnalyzeManyRequest message;
  QK_RETURN_IF_ERROR(ParseRaw(bytes, &message));
  bool has_spec = false;
  {
    MutexLock lock(&mutex_);
    if (end_.has_value()) return absl::OkStatus();
    has_spec = spec_ != nullptr;
  }
  const bool is_spec = message.has_spec();
  if (is_spec == has_spec) {
    return is_spec ? BadField("spec", "is allowed only in the first message")
                   : BadField("spec", "must be in the first message");
  }
  if (is_spec) return TakeSpec(std::move(*message.mutable_spec()));
  if (!message.has_prompt()) return BadField("prompt", "must be set");
  QK_RETURN_IF_ERROR(CountPrompt(held));
  TakePrompt(message.prompt(), bytes, held);
  return absl::OkStatus();
}

absl::Status ManyCall::TakeSpec(pb::AnalyzeManySpec spec) {
  std::optional<ConvertContext> context;
  {
    MutexLock lock(&mutex_);
    context.emplace(call_.convert_context());
  }
  QK_RETURN_IF_ERROR(CheckManySpec(spec, *context));
  if (spec.save_baseline()) {
    MutexLock lock(&mutex_);
    if (call_.user()->role != UserRole::kOperator) {
      return absl::PermissionDeniedError(
          "spec.save_baseline: only an operator may set this");
    }
  }
  if (!spec.request().has_priority()) {
    spec.mutable_request()->set_priority(pb::BATCH);
  }
  MutexLock lock(&mutex_);
  if (end_.has_value()) return absl::OkStatus();
  call_.model = spec.request().model();
  call_.arms = std::max(1, spec.request().arms_size());
  request_ =
      call_.MakeRequest(PriorityOf(spec.request().priority()),
                        [position = position_](int p) { *position = p; });
  request_->SetOnCancel([executor = run_parts_->executor,
                         weak = weak_from_this()](const absl::Status& why) {
    executor->Post([weak, why] {
      if (auto call = weak.lock()) call->EndCancelledBy(why);
    });
  });
  spec_ = std::make_shared<const pb::AnalyzeManySpec>(std::move(spec));
  return absl::OkStatus();
}

void ManyCall::TakePrompt(const pb::AnalyzeManyPrompt& message,
                          const grpc::ByteBuffer& bytes, bool held) {
  Prompt prompt;
  prompt.id = message.id();
  {
    MutexLock lock(&mutex_);
    prompt.error = CheckId(prompt.id, held);
  }
  if (prompt.error.ok()) prompt.error = Submit(message, &prompt);
  MutexLock lock(&mutex_);
  if (absl::IsUnavailable(prompt.error) && call_parts_->calls->draining()) {
    closing_ = prompt.error;
    return;
  }
  const bool others =
      std::any_of(prompts_.begin(), prompts_.end(),
                  [](const Prompt& other) { return other.error.ok(); });
  if (absl::IsResourceExhausted(prompt.error) && others) {
    held_ = bytes;
    return;
  }
  held_.reset();
  prompts_.push_back(std::move(prompt));
}

absl::Status ManyCall::CountPrompt(bool held) {
  MutexLock lock(&mutex_);
  if (held || ++prompts_read_ <= kMaxManyPrompts) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "prompt: limit ", kMaxManyPrompts, " in one stream; start another"));
}

absl::Status ManyCall::CheckId(const std::string& id, bool held) {
  if (id.empty() || id.size() > kMaxIdBytes) {
    return BadField(
        "prompt.id",
        absl::StrCat(id.size(), " bytes, must be 1 to ", kMaxIdBytes));
  }
  if (!held && !ids_.insert(DigestOf(id)).second) {
    return BadField("prompt.id",
                    absl::StrCat("'", Echo(id), "' is used twice"));
  }
  return absl::OkStatus();
}

absl::Status ManyCall::Submit(const pb::AnalyzeManyPrompt& message,
                              Prompt* prompt) {
  QK_RETURN_IF_ERROR(call_parts_->calls->CheckOpen());
  std::optional<ConvertContext> context;
  std::shared_ptr<const pb::AnalyzeManySpec> spec;
  std::shared_ptr<ScheduledRequest> request;
  std::shared_ptr<const User> user;
  std::string call_id;
  {
    MutexLock lock(&mutex_);
    context.emplace(call_.convert_context());
    spec = spec_;
    request = request_;
    user = call_.user();
    call_id = call_.id();
  }
  QK_RETURN_IF_ERROR(
      ToClientStatus(run_parts_->scheduler->CheckBudgetLeft(*user)));
  QK_ASSIGN_OR_RETURN(ConvertedRequest converted,
                      ConvertPrompt(*spec, message.input(), *context));
  const int64_t tokens = static_cast<int64_t>(converted.spec.tokens.size());
  prompt->expanded = converted.expanded;
  if (spec->save_baseline()) {
    prompt->model =
        run_parts_->activations->Find(converted.spec.arms[0].model.get());
  }
  const auto wake = [executor = run_parts_->executor, weak = weak_from_this()] {
    executor->Post([weak] {
      if (auto call = weak.lock()) call->Pump();
    });
  };
  QK_ASSIGN_OR_RETURN(PreparedRun prepared,
                      PrepareRun(*run_parts_, *user, std::move(converted),
                                 ActivationSource::kAnalyze, wake));
  prompt->queue = prepared.queue;
  prompt->answer = prepared.answer;
  prompt->memory = std::move(prepared.memory);
  prompt->activations = std::move(prepared.activations);
  DescribeRequest(request, absl::StrCat(call_id, "/", message.id()),
                  &prepared.encoder);
  prompt->encoder.emplace(std::move(prepared.encoder));
  prompt->queue->PushPosition(*position_);
  std::vector<ScheduledRun> runs;
  runs.push_back(std::move(prepared.scheduled));
  QK_RETURN_IF_ERROR(
      SubmitRuns(run_parts_->scheduler, request, std::move(runs)));
  MutexLock lock(&mutex_);
  call_.KeepPrompt(message.input());
  call_.prompt_tokens += tokens;
  return absl::OkStatus();
}

void ManyCall::OnWriteDone(bool ok) {
  const absl::Status thrown = Guarded("write done", [&] {
    DelayPoint("write_done");
    MutexLock lock(&mutex_);
    watch_.End();
    const int64_t bytes = static_cast<int64_t>(message_.Length());
    CountSent(*run_parts_, request_->info().priority, bytes, &call_);
    if (writing_queue_ != nullptr) {
      writing_queue_->Release(bytes);
      writing_answer_->Use({0, bytes});
      writing_queue_ = nullptr;
      writing_answer_ = nullptr;
    }
    message_.Clear();
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
  bool read = false, write = false, save_baseline = false;
  std::optional<grpc::ByteBuffer> held;
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
              if (write) message_ = ToByteBuffer(event_);
            });
        if (!thrown.ok()) {
          write = false;
          end_ = thrown;
        }
      }
      if (write) {
        watch_.Begin();
        first_event_ = std::min(first_event_, MonotonicNow());
      }
      if (!write && end_.has_value()) {
        finished_ = true;
        finish = FinishRecord();
      }
    }
    read = !finished_ && WantsRead();
    if (read) reading_ = true;
    if (baseline_state_ == BaselineState::kComplete && !end_.has_value()) {
      baseline_state_ = BaselineState::kPosted;
      save_baseline = working_ = true;
    }
    if (try_held_ && held_.has_value() && !working_ && !end_.has_value()) {
      held = held_;
      working_ = true;
      try_held_ = false;
    }
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
  if (held.has_value()) PostMessage(*held, true);
  if (save_baseline) PostBaseline();
  if (!write) return;
  const absl::Status thrown = Guarded("write", [] { DelayPoint("write"); });
  if (!thrown.ok()) return EndThrown(thrown, /*write=*/true);
  StartWrite(&message_);
}

bool ManyCall::WantsRead() const {
  return !reading_ && !working_ && !reads_done_ && !held_.has_value() &&
         !closing_.has_value() && !end_.has_value() &&
         prompts_.size() < kWindow;
}

void ManyCall::CountGenerated(const Prompt& prompt) {
  if (!prompt.encoder.has_value()) return;
  call_.generated_tokens += prompt.encoder->generated_tokens();
}

grpc::Status ManyCall::FinishRecord() {
  for (const Prompt& prompt : prompts_) CountGenerated(prompt);
  if (request_ != nullptr) {
    call_.SetPhases(*request_,
                    absl::ToDoubleSeconds(std::max(
                        absl::ZeroDuration(), MonotonicNow() - first_event_)));
  }
  return call_.Finish(*end_);
}

}  // namespace qk
