#include "server/calls/score_call.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "server/calls/activation_tap.h"
#include "server/calls/post_work.h"
#include "server/calls/prepared_run.h"
#include "server/common/bad_field.h"
#include "server/common/delay_point.h"
#include "server/common/guarded.h"
#include "server/common/limits.h"
#include "server/common/refusal.h"
#include "server/common/text.h"
#include "server/convert/convert.h"
#include "server/events/raw_message.h"

namespace qk {

namespace {

// A bound on the answer's size.
int64_t AnswerBytes(const ConvertedScore& score, bool totals_only) {
  constexpr int64_t kResultBytes = 64;  // without the tokens
  constexpr int64_t kTokenBytes = 5;
  int64_t bytes = 0;
  for (const RunSpec& spec : score.specs) {
    bytes += kResultBytes;
    if (!totals_only) bytes += kTokenBytes * spec.score->size();
  }
  return bytes;
}

// Fails if the answer would be larger than clients accept.
absl::Status CheckAnswerSize(int64_t bytes) {
  if (bytes <= kMaxAnswerBytes) return absl::OkStatus();
  return BadField(
      "pairs", absl::StrCat("the answer would have ", HumanBytes(bytes),
                            ", limit ", HumanBytes(kMaxAnswerBytes),
                            "; send fewer pairs at once, or set totals_only"));
}

// A bound on what the pairs take in memory while they wait and run. Each pair
// has its own copy of the arm that they share.
int64_t BytesOf(const pb::ScoreRequest& request) {
  constexpr int64_t kPairBytes = 4096;
  constexpr int64_t kPerByte = 8;  // of memory for a byte of the message
  int64_t bytes = 0;
  for (const pb::ScorePair& pair : request.pairs()) {
    bytes += kPairBytes + kPerByte * static_cast<int64_t>(pair.ByteSizeLong());
    if (!pair.has_arm()) {
      bytes += kPerByte * static_cast<int64_t>(request.arm().GetCachedSize());
    }
  }
  return bytes;
}

}  // namespace

// Keeps the result of a pair's run until it ends.
class ScoreCall::PairSink : public RunSink {
 public:
  PairSink(Executor* executor, std::weak_ptr<ScoreCall> call, size_t index)
      : executor_(executor), call_(std::move(call)), index_(index) {}

  void OnLayer(LayerFrame) override {}
  void OnApplied(AppliedRule) override {}
  void OnToken(TokenEvent) override {}
  void OnComparison(ComparisonResult) override {}
  void OnLogits(int, std::vector<PositionLogits>) override {}
  void OnScore(ScoreResult score) override { score_ = std::move(score); }
  void OnFinished(const absl::Status& status, const std::vector<ArmSummary>&,
                  const RunTimes&) override {
    executor_->Post([call = call_, index = index_, end = ToClientStatus(status),
                     score = std::move(score_)] {
      const auto c = call.lock();
      if (c == nullptr) return;
      const absl::Status thrown =
          Guarded("Score", [&] { c->PairDone(index, end, score); });
      if (!thrown.ok()) c->End(thrown);
    });
  }

 private:
  Executor* const executor_;
  const std::weak_ptr<ScoreCall> call_;
  const size_t index_;
  ScoreResult score_;
};

ScoreCall::ScoreCall(const CallParts* call_parts, const RunParts* run_parts,
                     grpc::CallbackServerContext* context,
                     grpc::ByteBuffer* response)
    : call_parts_(call_parts),
      run_parts_(run_parts),
      context_(context),
      response_(response),
      call_(call_parts, context, "Score") {}

ScoreCall* ScoreCall::Start(const CallParts* call_parts,
                            const RunParts* run_parts,
                            grpc::CallbackServerContext* context,
                            const grpc::ByteBuffer& message,
                            grpc::ByteBuffer* response) {
  auto call = std::shared_ptr<ScoreCall>(
      new ScoreCall(call_parts, run_parts, context, response));
  call->self_ = call;
  const absl::Status status =
      Guarded("Score", [&] { return call->Accept(message); });
  if (!status.ok()) call->End(status);
  return call.get();
}

absl::Status ScoreCall::Accept(const grpc::ByteBuffer& message) {
  std::shared_ptr<const User> user;
  {
    MutexLock lock(&mutex_);
    QK_RETURN_IF_ERROR(call_.Open());
    deadline_ = call_.deadline();
    user = call_.user();
  }
  call_parts_->calls->Register(weak_from_this());
  const auto call = shared_from_this();
  return PostBegin(
      *call_parts_, std::move(user), message, Budget::kNeeded,
      [call, message] { return call->Begin(message); },
      [call](const absl::Status& status) {
        if (!status.ok()) call->End(status);
      });
}

absl::Status ScoreCall::Begin(const grpc::ByteBuffer& message) {
  std::vector<ScheduledRun> runs;
  QK_RETURN_IF_ERROR(Prepare(message, &runs));
  std::shared_ptr<ScheduledRequest> request;
  {
    MutexLock lock(&mutex_);
    request = request_;
  }
  return SubmitRuns(run_parts_->scheduler, request, std::move(runs));
}

absl::Status ScoreCall::Prepare(const grpc::ByteBuffer& message,
                                std::vector<ScheduledRun>* runs) {
  pb::ScoreRequest request;
  QK_RETURN_IF_ERROR(ParseRaw(message, &request));
  std::optional<ConvertContext> context;
  std::shared_ptr<const User> user;
  {
    MutexLock lock(&mutex_);
    if (finished_) return absl::CancelledError("the call has ended");
    for (const pb::ScorePair& pair : request.pairs()) {
      call_.KeepPrompt(pair.context());
      call_.KeepPrompt(pair.continuation());
    }
    context.emplace(call_.convert_context());
    user = call_.user();
  }
  request.ByteSizeLong();  // BytesOf uses the sizes that this leaves
  auto memory = run_parts_->requests->Take(user->alias, BytesOf(request));
  if (absl::IsFailedPrecondition(memory.status())) {
    return Refused(Refusal::kNeverFits,
                   absl::ResourceExhaustedError(
                       "pairs: their arms need too much memory; send fewer "
                       "pairs or rules at once"));
  }
  if (!memory.ok()) return Refused(Refusal::kQueueFull, memory.status());
  QK_ASSIGN_OR_RETURN(ConvertedScore score, ConvertScore(request, *context));
  const int64_t answer_bytes = AnswerBytes(score, request.totals_only());
  QK_RETURN_IF_ERROR(CheckAnswerSize(answer_bytes));
  MutexLock lock(&mutex_);
  if (finished_) return absl::CancelledError("the call has ended");
  memory_ = *std::move(memory);
  totals_only_ = request.totals_only();
  call_.model = score.model.name;
  call_.arms = static_cast<int64_t>(score.specs.size());
  results_.resize(score.specs.size());
  left_ = score.specs.size();
  for (size_t i = 0; i < score.specs.size(); ++i) {
    RunSpec& spec = score.specs[i];
    results_[i].set_context_tokens(score.context_tokens[i]);
    const int64_t rows = spec.score->end;
    call_.prompt_tokens += rows;
    ScheduledRun& run = runs->emplace_back();
    run.prefill_rows = rows;
    std::shared_ptr<RunSink> sink =
        std::make_shared<PairSink>(run_parts_->executor, weak_from_this(), i);
    if (auto tap = ActivationTap::Create(*run_parts_, ActivationSource::kScore,
                                         sink, &spec)) {
      sink = std::move(tap);
    }
    QK_ASSIGN_OR_RETURN(const RunEstimate estimate, Run::Estimate(spec));
    run.memory_bytes = estimate.peak_extra_bytes;
    QK_ASSIGN_OR_RETURN(run.run, Run::Create(std::move(spec), sink.get()));
    run.keep_alive = std::move(sink);
  }
  answer_ = std::make_shared<UsageHold>();
  runs->front().most_bytes = answer_bytes;
  runs->front().answer = answer_;
  request_ = call_.MakeRequest(score.priority, [](int) {});
  request_->SetOnCancel([executor = run_parts_->executor,
                         weak = weak_from_this()](const absl::Status& why) {
    executor->Post([weak, why] {
      if (auto call = weak.lock()) call->End(ToClientStatus(why));
    });
  });
  return absl::OkStatus();
}

void ScoreCall::PairDone(size_t index, const absl::Status& status,
                         const ScoreResult& result) {
  if (!status.ok()) {
    End(status);
    return;
  }
  bool last = false;
  {
    MutexLock lock(&mutex_);
    pb::ScoreResult& out = results_[index];
    double sum = 0;
    bool greedy = true;
    int non_finite = 0;
    for (float logprob : result.token_logprob) {
      sum += logprob;
      if (!std::isfinite(logprob)) ++non_finite;
      if (!totals_only_) out.add_token_logprobs(logprob);
    }
    for (bool token : result.greedy) {
      greedy = greedy && token;
      if (!totals_only_) out.add_token_greedy(token);
    }
    out.set_non_finite(non_finite);
    out.set_logprob(sum);
    out.set_is_greedy(greedy);
    out.set_continuation_tokens(static_cast<int>(result.greedy.size()));
    last = --left_ == 0;
  }
  if (last) End(absl::OkStatus());
}

bool ScoreCall::End(absl::Status status) {
  grpc::Status converted;
  std::shared_ptr<ScheduledRequest> request;
  {
    MutexLock lock(&mutex_);
    if (std::exchange(finished_, true)) return false;
    if (status.ok()) status = MakeAnswer();
    request = request_;
    if (request != nullptr) call_.SetPhases(*request, 0);
    converted = call_.Finish(status);
  }
  if (!status.ok() && request != nullptr) request->Cancel(status);
  DelayPoint("finish");
  Finish(converted);
  return true;
}

absl::Status ScoreCall::MakeAnswer() {
  pb::ScoreResponse answer;
  for (pb::ScoreResult& result : results_) {
    *answer.add_results() = std::move(result);
  }
  const int64_t bytes = static_cast<int64_t>(answer.ByteSizeLong());
  // The client may never read it.
  QK_ASSIGN_OR_RETURN(room_, TakeBytes(run_parts_->buffers, *call_.user(),
                                       bytes, Refusal::kStreamBuffers));
  CountSent(*run_parts_, request_->info().priority, bytes, &call_);
  *response_ = ToByteBuffer(answer);
  return absl::OkStatus();
}

void ScoreCall::Tick(absl::Time now) {
  if (now > deadline_) End(absl::DeadlineExceededError("deadline exceeded"));
}

void ScoreCall::OnCancel() {
  const absl::Status thrown = Guarded("cancel", [&] {
    DelayPoint("cancel");
    End(CancelledReason(*context_));
  });
  if (!thrown.ok()) End(thrown);
}

void ScoreCall::OnDone() { std::shared_ptr<ScoreCall> last = std::move(self_); }

}  // namespace qk
