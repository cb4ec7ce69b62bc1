#include "engine/run/compare.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"
#include "engine/base/check.h"
#include "engine/lm_head.h"
#include "engine/model/workspace.h"

namespace qk {
namespace {

void FillResult(absl::Span<const LogitsRow> base,
                absl::Span<const LogitsRow> arm, ComparisonResult* result) {
  for (size_t t = 0; t < arm.size(); ++t) {
    const bool finite = arm[t].finite() && base[t].finite();
    // The baseline's own divergence is not computed.
    if (!finite) result->kl[t] = std::numeric_limits<float>::quiet_NaN();
    result->top1[t] = arm[t].finite() ? arm[t].top1 : -1;
    result->top1_flip[t] = finite && arm[t].top1 != base[t].top1;
    if (t + 1 < arm.size()) {
      result->token_logprob[t + 1] = arm[t].target_logprob;
    }
  }
}

}  // namespace

Comparison::Comparison(absl::Span<const int32_t> tokens,
                       std::vector<Sequence*> arms, int baseline)
    : tokens_(tokens),
      arms_(std::move(arms)),
      baseline_(baseline),
      clock_(arms_[baseline]->model().backend()) {
  for (const Sequence* arm : arms_) {
    ComparisonResult& result = results_.emplace_back();
    result.arm = arm->arm();
    result.kl.resize(tokens_.size());
    result.top1.resize(tokens_.size());
    result.top1_flip.resize(tokens_.size());
    result.token_logprob.resize(tokens_.size());
    rows_.emplace_back(tokens_.size());
  }
}

void Comparison::RunArm(size_t arm, int begin, int rows, const Workspace& work,
                        int tile) {
  const Sequence& sequence = *arms_[arm];
  const Model& model = sequence.model();
  std::vector<int32_t> targets(rows, -1);
  for (size_t i = 0; i < targets.size(); ++i) {
    const size_t next = begin + i + 1;
    if (next < tokens_.size()) targets[i] = tokens_[next];
  }
  LogitsTile(
      model,
      sequence.kept_rows() + int64_t{begin} * model.config().embedding_size,
      targets, work, tile);
  due_.push_back({arm, begin,
                  model.backend()->Fetch(work.reduced(tile),
                                         rows * int64_t{sizeof(LogitsRow)}),
                  Arrival()});
}

void Comparison::Take() {
  for (; !due_.empty() && due_.front().reduced.here(); due_.pop_front()) {
    const Due& due = due_.front();
    const bool is_baseline = static_cast<int>(due.arm) == baseline_;
    if (!is_baseline && !due.kl.here()) return;
    absl::c_copy(due.reduced.as<LogitsRow>(),
                 rows_[due.arm].begin() + due.begin);
    if (is_baseline) continue;
    absl::c_copy(due.kl.as<float>(), results_[due.arm].kl.begin() + due.begin);
  }
}

void Comparison::RunTile() {
  clock_.Begin();
  const Model& base_model = arms_[baseline_]->model();
  const Workspace& work = base_model.workspace();
  const int begin = next_;
  const int rows =
      std::min(work.logits_rows(), static_cast<int>(tokens_.size()) - begin);
  RunArm(baseline_, begin, rows, work, 0);
  for (size_t i = 0; i < arms_.size(); ++i) {
    if (static_cast<int>(i) == baseline_) continue;
    RunArm(i, begin, rows, work, 1);
    Backend& backend = *base_model.backend();
    backend.KlDivergence(work.logits(0), work.logits(1),
                         base_model.config().vocab_size, rows, work.reduced(0),
                         work.reduced(1), work.kl());
    due_.back().kl = backend.Fetch(work.kl(), int64_t{4} * rows);
  }
  Take();
  next_ += rows;
  clock_.End();
}

absl::StatusOr<std::vector<ComparisonResult>> Comparison::Finish() {
  QK_CHECK(done());
  QK_RETURN_IF_ERROR(arms_[baseline_]->model().backend()->Synchronize());
  Take();
  QK_CHECK(due_.empty());
  for (size_t i = 0; i < arms_.size(); ++i) {
    FillResult(rows_[baseline_], rows_[i], &results_[i]);
  }
  return std::move(results_);
}

}  // namespace qk
