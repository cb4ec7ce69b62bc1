#include "engine/run/compare.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/check.h"
#include "engine/head.h"
#include "engine/model/workspace.h"

namespace qk {
namespace {

// Rows [begin, begin + rows) of an arm: its logits, and what they reduce to.
std::vector<LogitsRow> TileOf(const Sequence& arm,
                              absl::Span<const int32_t> tokens, int begin,
                              int rows, float* logits) {
  const Model& model = arm.model();
  const int width = model.config().embedding_size;
  std::vector<LogitsRow> reduced(rows);
  for (int i = 0; i < rows; ++i) {
    const size_t next = static_cast<size_t>(begin) + i + 1;
    if (next < tokens.size()) reduced[i].target = tokens[next];
  }
  Logits(model, arm.kept_rows() + int64_t{begin} * width, rows, logits);
  model.backend()->ReduceLogits(logits, model.config().vocab_size,
                                absl::MakeSpan(reduced));
  return reduced;
}

void Store(absl::Span<const LogitsRow> base, absl::Span<const LogitsRow> arm,
           int begin, ComparisonResult* result) {
  for (size_t i = 0; i < arm.size(); ++i) {
    const size_t t = begin + i;
    result->top1[t] = arm[i].top1;
    result->top1_flip[t] = arm[i].top1 != base[i].top1;
    if (t + 1 < result->token_logprob.size()) {
      result->token_logprob[t + 1] = arm[i].target_logprob;
    }
  }
}

}  // namespace

Comparison::Comparison(absl::Span<const int32_t> tokens,
                       std::vector<Sequence*> arms, int baseline)
    : tokens_(tokens), arms_(std::move(arms)), baseline_(baseline) {
  for (const Sequence* arm : arms_) {
    ComparisonResult& result = results_.emplace_back();
    result.arm = arm->arm();
    result.kl.resize(tokens_.size());
    result.top1.resize(tokens_.size());
    result.top1_flip.resize(tokens_.size());
    result.token_logprob.resize(tokens_.size());
  }
}

void Comparison::RunTile() {
  const auto start = std::chrono::steady_clock::now();
  const Model& base_model = arms_[baseline_]->model();
  Workspace& work = base_model.workspace();
  const int begin = next_;
  const int rows =
      std::min(work.logits_rows(), static_cast<int>(tokens_.size()) - begin);
  const std::vector<LogitsRow> base =
      TileOf(*arms_[baseline_], tokens_, begin, rows, work.logits(0));
  for (size_t i = 0; i < arms_.size(); ++i) {
    if (static_cast<int>(i) == baseline_) {
      Store(base, base, begin, &results_[i]);
      continue;
    }
    const std::vector<LogitsRow> arm =
        TileOf(*arms_[i], tokens_, begin, rows, work.logits(1));
    Store(base, arm, begin, &results_[i]);
    base_model.backend()->KlDivergence(work.logits(0), work.logits(1),
                                       base_model.config().vocab_size, base,
                                       arm, results_[i].kl.data() + begin);
  }
  next_ += rows;
  seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
}

absl::StatusOr<std::vector<ComparisonResult>> Comparison::Finish() {
  QK_CHECK(done());
  QK_RETURN_IF_ERROR(arms_[baseline_]->model().backend()->Synchronize());
  return std::move(results_);
}

}  // namespace qk
