#include "engine/run/run_arm.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "engine/base/check.h"
#include "engine/run/sampler.h"

namespace qk {
namespace {

const std::vector<std::string>& StopStrings(const RunSpec& spec) {
  static const auto* const none = new std::vector<std::string>;
  return spec.generate.has_value() ? spec.generate->stop_strings : *none;
}

}  // namespace

RunArm::RunArm(const RunSpec& spec, RunSink* sink,
               std::unique_ptr<Sequence> sequence)
    : spec_(spec),
      sink_(sink),
      sequence_(std::move(sequence)),
      text_(StopStrings(spec)) {}

absl::Status RunArm::Reserve() {
  QK_RETURN_IF_ERROR(sequence_->Reserve());
  RequestLogits();
  return absl::OkStatus();
}

// The requests are in this order: score, logits, then the last row for
// generation. AfterPass reads the results in the same order.
void RunArm::RequestLogits() {
  std::vector<LogitsRequest>& requests = sequence_->logits_requests;
  requests.clear();
  const RowSpan span = sequence_->NextSpan();
  const int end = span.first_position + span.rows;
  recomputing_ = span.recomputed;
  score_requests_ = 0;
  if (span.recomputed) return;
  if (spec_.score.has_value()) {
    const int first = std::max(spec_.score->begin, span.first_position + 1);
    for (int t = first; t <= end && t < spec_.score->end; ++t) {
      LogitsRequest& request = requests.emplace_back();
      request.position = t - 1;
      request.target = spec_.token_at(t);
      ++score_requests_;
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

void RunArm::AfterPass() {
  if (recomputing_) {
    RequestLogits();
    return;
  }
  TakeScore();
  if (!prefilled_) {
    prefilled_ = true;
    SendLogits();
  }
  if (!spec_.generate.has_value()) {
    FollowContinuation();
  } else if (spec_.generate->max_new_tokens == 0) {
    Stop("length");
  } else {
    TakeToken();
  }
}

void RunArm::FollowContinuation() {
  done_ = !sequence_->has_next();
  if (!done_) RequestLogits();
}

// Keeps the scores of the last pass, and sends all after the last of them.
void RunArm::TakeScore() {
  if (score_requests_ == 0) return;
  score_.arm = sequence_->arm();
  for (int i = 0; i < score_requests_; ++i) {
    const LogitsRow& row = sequence_->logits_results[i].row;
    score_.token_logprob.push_back(row.target_logprob);
    score_.greedy.push_back(row.finite() &&
                            row.top1 == sequence_->logits_requests[i].target);
  }
  const size_t wanted = static_cast<size_t>(spec_.score->size());
  if (score_.greedy.size() == wanted) sink_->OnScore(std::move(score_));
}

void RunArm::SendLogits() {
  if (!spec_.logits.has_value()) return;
  const size_t first = score_requests_;
  std::vector<PositionLogits> logits;
  logits.reserve(spec_.logits->positions.size());
  for (size_t i = 0; i < spec_.logits->positions.size(); ++i) {
    LogitsResult& result = sequence_->logits_results[first + i];
    logits.push_back({spec_.logits->positions[i], std::move(result.ids),
                      std::move(result.logprobs)});
  }
  sink_->OnLogits(sequence_->arm(), std::move(logits));
}

TokenEvent RunArm::ChooseToken(const LogitsResult& result) const {
  const SamplingSpec& sampling = spec_.generate->sampling;
  TokenEvent token;
  token.arm = sequence_->arm();
  token.step = summary_.generated_tokens;
  token.id = result.row.top1;
  token.logprob = result.row.top1_logprob;
  if (sampling.temperature > 0) {
    token.id = Sample(result.logits, sampling, token.step);
    token.logprob =
        static_cast<float>(result.logits[token.id] - result.row.log_sum_exp);
  }
  return token;
}

void RunArm::TakeToken() {
  const LogitsResult& result = sequence_->logits_results.back();
  if (!result.row.finite()) {
    text_.Finish();  // no token carries what was held back; the summary does
    Stop("non_finite");
    return;
  }
  const GenerateSpec& spec = *spec_.generate;
  TokenEvent token = ChooseToken(result);
  ++summary_.generated_tokens;
  if (absl::c_linear_search(spec.stop_ids, token.id)) {
    token.text = text_.Finish();
    sink_->OnToken(std::move(token));
    Stop("stop_token");
    return;
  }
  const Tokenizer* tokenizer = sequence_->model().tokenizer();
  if (tokenizer != nullptr && token.id < tokenizer->vocab_size()) {
    token.text = text_.Add(tokenizer->Piece(token.id));
  }
  const int32_t id = token.id;
  const bool last = summary_.generated_tokens == spec.max_new_tokens;
  if (last && !text_.stopped()) token.text += text_.Finish();
  sink_->OnToken(std::move(token));
  if (text_.stopped()) {
    Stop("stop_string");
  } else if (last) {
    Stop("length");
  } else {
    sequence_->AppendToken(id);
    RequestLogits();
  }
}

void RunArm::Stop(const char* reason) {
  done_ = true;
  summary_.stop_reason = reason;
  summary_.text = text_.text();
  status_ = sequence_->FinishDecode();
}

}  // namespace qk
