#include "engine/run/run.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/base/thread_annotations.h"
#include "engine/base/check.h"
#include "engine/base/mutex.h"
#include "engine/base/out_of_memory.h"
#include "engine/images.h"
#include "engine/run/compare.h"
#include "engine/run/generate.h"
#include "engine/run/sampler.h"
#include "engine/sequence.h"

namespace qk {
namespace {

// One arm and its progress.
struct Arm {
  explicit Arm(const std::vector<std::string>& stop_strings)
      : text(stop_strings) {}
  std::unique_ptr<Sequence> sequence;
  TextStream text;
  ArmSummary summary;
  ScoreResult score;         // of the rows so far
  int score_requests = 0;    // of the next pass
  bool recomputing = false;  // the next pass only repeats rows
  bool prefilled = false;
  bool done = false;
};

class RunImpl final : public Run {
 public:
  RunImpl(RunSpec spec, RunSink* sink);

  absl::Status Reserve() override;
  const Model* next_model() const override;
  void AppendReady(const Model* model, std::vector<Sequence*>* out) override;
  void AfterPass(absl::Span<Sequence* const> ran, const absl::Status& status,
                 double seconds) override;
  bool finished() const override { return finished_; }
  bool comparing() const override { return comparison_ != nullptr; }
  void CompareTile() override;
  void Cancel(absl::Status reason) override;
  bool cancelled() const override { return cancelled_; }
  void FinishCancelled() override;
  const RunSpec& spec() const override { return spec_; }

 private:
  // Runs `step`, and ends the run if the host is out of memory.
  template <typename Step>
  void Guard(const Step& step);
  void MakeArms();
  void RequestLogits(Arm& arm);
  void AfterGoodPass(absl::Span<Sequence* const> ran, double seconds);
  void AfterPrefill(Arm& arm);
  void AfterDecode(Arm& arm);
  void FollowContinuation(Arm& arm);
  void SendLogits(const Arm& arm);
  void TakeScore(Arm& arm);
  void TakeToken(Arm& arm, const LogitsResult& result);
  void Stop(Arm& arm, const char* reason);
  void StartComparison();
  void EndComparison();
  void FinishWhenDone();
  void Finish(const absl::Status& status);

  const RunSpec spec_;
  RunSink* sink_;
  const std::vector<std::string> no_stop_strings_;
  std::vector<Arm> arms_;
  std::atomic<bool> cancelled_{false};
  Mutex reason_mutex_;
  absl::Status reason_ ABSL_GUARDED_BY(reason_mutex_);
  std::unique_ptr<Comparison> comparison_;
  bool compared_ = false;  // a comparison has started
  bool finished_ = false;
  absl::Status arm_status_;  // the first error of a FinishDecode
  RunTimes times_;
};

RunImpl::RunImpl(RunSpec spec, RunSink* sink)
    : spec_(std::move(spec)), sink_(sink) {}

template <typename Step>
void RunImpl::Guard(const Step& step) {
  const absl::Status status = WithoutBadAlloc(step);
  if (status.ok()) return;
  finished_ = true;
  comparison_.reset();
  arms_.clear();  // first, because OnFinished needs memory, too
  // This may be the second call: the sink knows that the first one threw.
  sink_->OnFinished(status, {}, times_);
}

void RunImpl::MakeArms() {
  arms_.clear();
  for (size_t i = 0; i < spec_.arms.size(); ++i) {
    Arm& arm = arms_.emplace_back(spec_.generate.has_value()
                                      ? spec_.generate->stop_strings
                                      : no_stop_strings_);
    const int index = static_cast<int>(i);
    const int owner = Sequence::TowerOwner(spec_, index);
    arm.sequence = std::make_unique<Sequence>(
        spec_, index, cancelled_, sink_,
        owner == index ? nullptr : arms_[owner].sequence->vision());
  }
}

absl::Status RunImpl::Reserve() {
  const absl::Status status = WithoutBadAlloc([this] {
    MakeArms();
    for (Arm& arm : arms_) {
      QK_RETURN_IF_ERROR(arm.sequence->Reserve());
      RequestLogits(arm);
    }
    return absl::OkStatus();
  });
  if (!status.ok()) arms_.clear();  // a run that waits holds no memory
  return status;
}

// An arm's requests are in this order: score, logits, then the last row for
// generation. AfterPrefill and AfterDecode read the results in the same order.
void RunImpl::RequestLogits(Arm& arm) {
  std::vector<LogitsRequest>& requests = arm.sequence->logits_requests;
  requests.clear();
  const RowSpan span = arm.sequence->NextSpan();
  const int end = span.first_position + span.rows;
  arm.recomputing = span.recomputed;
  arm.score_requests = 0;
  if (span.recomputed) return;
  if (spec_.score.has_value()) {
    const int first = std::max(spec_.score->begin, span.first_position + 1);
    for (int t = first; t <= end && t < spec_.score->end; ++t) {
      LogitsRequest& request = requests.emplace_back();
      request.position = t - 1;
      request.target = spec_.token_at(t);
      ++arm.score_requests;
    }
  }
  if (spec_.logits.has_value() && span.phase == Phase::kPrefill) {
    for (int position : spec_.logits->positions) {
      LogitsRequest& request = requests.emplace_back();
      request.position = position;
      request.top_n = spec_.logits->top_n;
    }
  }
  if (spec_.generate.has_value() && spec_.generate->max_new_tokens > 0) {
    LogitsRequest& request = requests.emplace_back();
    request.position = end - 1;
    request.want_logits = spec_.generate->sampling.temperature > 0;
  }
}

const Model* RunImpl::next_model() const {
  // Before Reserve there are no sequences yet.
  if (arms_.empty() && !finished_) return spec_.arms.front().model.get();
  for (const Arm& arm : arms_) {
    if (!arm.done) return &arm.sequence->model();
  }
  return nullptr;
}

void RunImpl::AppendReady(const Model* model, std::vector<Sequence*>* out) {
  if (comparing()) return;
  for (Arm& arm : arms_) {
    if (!arm.done && &arm.sequence->model() == model) {
      out->push_back(arm.sequence.get());
    }
  }
}

void RunImpl::AfterPass(absl::Span<Sequence* const> ran,
                        const absl::Status& status, double seconds) {
  if (finished_) return;
  if (cancelled_) {
    FinishCancelled();
    return;
  }
  Guard([&] {
    if (status.ok()) {
      AfterGoodPass(ran, seconds);
    } else {
      Finish(status);
    }
  });
}

void RunImpl::AfterGoodPass(absl::Span<Sequence* const> ran, double seconds) {
  bool decode = true;
  for (Arm& arm : arms_) {
    if (!absl::c_linear_search(ran, arm.sequence.get())) continue;
    if (arm.recomputing) {
      RequestLogits(arm);
    } else if (arm.prefilled) {
      AfterDecode(arm);
    } else {
      decode = false;
      AfterPrefill(arm);
    }
  }
  (decode ? times_.decode : times_.prefill) += seconds;
  if (!arm_status_.ok()) {
    Finish(arm_status_);
    return;
  }
  StartComparison();
  FinishWhenDone();
}

void RunImpl::FinishWhenDone() {
  const bool all_done =
      absl::c_all_of(arms_, [](const Arm& arm) { return arm.done; });
  if (!finished_ && !comparing() && all_done) Finish(absl::OkStatus());
}

void RunImpl::AfterPrefill(Arm& arm) {
  arm.prefilled = true;
  TakeScore(arm);
  SendLogits(arm);
  if (!spec_.generate.has_value()) {
    FollowContinuation(arm);
    return;
  }
  if (spec_.generate->max_new_tokens == 0) {
    Stop(arm, "length");
    return;
  }
  TakeToken(arm, arm.sequence->logits_results.back());
}

void RunImpl::AfterDecode(Arm& arm) {
  TakeScore(arm);
  if (spec_.generate.has_value()) {
    TakeToken(arm, arm.sequence->logits_results.back());
  } else {
    FollowContinuation(arm);
  }
}

void RunImpl::FollowContinuation(Arm& arm) {
  arm.done = !arm.sequence->has_next();
  if (!arm.done) RequestLogits(arm);
}

// Keeps the scores of the last pass, and sends all after the last of them.
void RunImpl::TakeScore(Arm& arm) {
  if (arm.score_requests == 0) return;
  arm.score.arm = arm.sequence->arm();
  for (int i = 0; i < arm.score_requests; ++i) {
    const LogitsRow& row = arm.sequence->logits_results[i].row;
    arm.score.token_logprob.push_back(row.target_logprob);
    arm.score.greedy.push_back(
        row.finite() && row.top1 == arm.sequence->logits_requests[i].target);
  }
  const size_t wanted = static_cast<size_t>(spec_.score->size());
  if (arm.score.greedy.size() == wanted) sink_->OnScore(std::move(arm.score));
}

void RunImpl::SendLogits(const Arm& arm) {
  if (!spec_.logits.has_value()) return;
  const size_t first = arm.score_requests;
  std::vector<PositionLogits> logits;
  for (size_t i = 0; i < spec_.logits->positions.size(); ++i) {
    const LogitsResult& result = arm.sequence->logits_results[first + i];
    logits.push_back({spec_.logits->positions[i], result.ids, result.logprobs});
  }
  sink_->OnLogits(arm.sequence->arm(), std::move(logits));
}

void RunImpl::TakeToken(Arm& arm, const LogitsResult& result) {
  if (!result.row.finite()) {
    Stop(arm, "non_finite");
    return;
  }
  const GenerateSpec& spec = *spec_.generate;
  const int step = arm.summary.generated_tokens;
  TokenEvent token;
  token.arm = arm.sequence->arm();
  token.step = step;
  token.id = result.row.top1;
  token.logprob = result.row.top1_logprob;
  if (spec.sampling.temperature > 0) {
    token.id = Sample(result.logits, spec.sampling, step);
    token.logprob =
        static_cast<float>(result.logits[token.id] - result.row.log_sum_exp);
  }
  ++arm.summary.generated_tokens;
  if (absl::c_linear_search(spec.stop_ids, token.id)) {
    token.text = arm.text.Finish();
    sink_->OnToken(std::move(token));
    Stop(arm, "stop_token");
    return;
  }
  const Tokenizer* tokenizer = arm.sequence->model().tokenizer();
  if (tokenizer != nullptr && token.id < tokenizer->vocab_size()) {
    token.text = arm.text.Add(tokenizer->Piece(token.id));
  }
  const int32_t id = token.id;
  const bool last = arm.summary.generated_tokens == spec.max_new_tokens;
  if (last && !arm.text.stopped()) token.text += arm.text.Finish();
  sink_->OnToken(std::move(token));
  if (arm.text.stopped()) {
    Stop(arm, "stop_string");
  } else if (last) {
    Stop(arm, "length");
  } else {
    arm.sequence->AppendToken(id);
    RequestLogits(arm);
  }
}

void RunImpl::Stop(Arm& arm, const char* reason) {
  arm.done = true;
  arm.summary.stop_reason = reason;
  arm.summary.text = arm.text.text();
  arm_status_.Update(arm.sequence->FinishDecode());
}

void RunImpl::StartComparison() {
  if (compared_ || !spec_.baseline.has_value()) return;
  std::vector<Sequence*> sequences;
  for (Arm& arm : arms_) {
    if (!arm.prefilled) return;
    sequences.push_back(arm.sequence.get());
  }
  compared_ = true;
  comparison_ = std::make_unique<Comparison>(spec_.tokens, std::move(sequences),
                                             *spec_.baseline);
}

void RunImpl::CompareTile() {
  QK_CHECK(comparing());
  if (cancelled_) {
    FinishCancelled();
    return;
  }
  Guard([this] {
    comparison_->RunTile();
    if (comparison_->done()) EndComparison();
  });
}

void RunImpl::EndComparison() {
  absl::StatusOr<std::vector<ComparisonResult>> results = comparison_->Finish();
  times_.compare += comparison_->seconds();
  comparison_.reset();
  if (!results.ok()) {
    Finish(results.status());
    return;
  }
  for (ComparisonResult& result : *results) {
    sink_->OnComparison(std::move(result));
  }
  FinishWhenDone();
}

void RunImpl::Cancel(absl::Status reason) {
  MutexLock lock(&reason_mutex_);
  if (cancelled_) return;
  reason_ = std::move(reason);
  cancelled_ = true;
}

void RunImpl::FinishCancelled() {
  if (finished_ || !cancelled_) return;
  absl::Status reason;
  {
    MutexLock lock(&reason_mutex_);
    reason = reason_;
  }
  Guard([&] { Finish(reason); });
}

void RunImpl::Finish(const absl::Status& status) {
  finished_ = true;
  if (comparing()) times_.compare += comparison_->seconds();
  comparison_.reset();
  std::vector<ArmSummary> summaries;
  for (Arm& arm : arms_) {
    times_.capture += arm.sequence->capture_seconds();
    summaries.push_back(arm.summary);
  }
  arms_.clear();  // frees pages and buffers now, before the run is destroyed
  sink_->OnFinished(status, summaries, times_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Run>> Run::Create(RunSpec spec, RunSink* sink) {
  QK_CHECK(!spec.tokens.empty() && !spec.arms.empty());
  return WithoutBadAlloc([&]() -> absl::StatusOr<std::unique_ptr<Run>> {
    for (const ArmSpec& arm : spec.arms) {
      QK_RETURN_IF_ERROR(
          CheckImages(spec.images, spec.tokens, arm.model->config().vision));
    }
    QK_RETURN_IF_ERROR(Estimate(spec).status());
    return std::make_unique<RunImpl>(std::move(spec), sink);
  });
}

}  // namespace qk
