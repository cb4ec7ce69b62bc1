#include "engine/compare.h"

#include <algorithm>
#include <chrono>

#include "engine/check.h"
#include "engine/head.h"
#include "engine/workspace.h"

namespace qk {
namespace {

// Rows [begin, begin + rows) of an arm: its logits, and what they reduce to.
std::vector<LogitsRow> RunTile(const Sequence& arm,
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

absl::StatusOr<std::vector<ComparisonResult>> CompareArms(
    absl::Span<const int32_t> tokens, absl::Span<Sequence* const> arms,
    int baseline, const std::atomic<bool>& cancelled, double* seconds) {
  const auto start = std::chrono::steady_clock::now();
  const int total = static_cast<int>(tokens.size());
  std::vector<ComparisonResult> results(arms.size());
  for (size_t i = 0; i < arms.size(); ++i) {
    results[i].arm = arms[i]->arm();
    results[i].kl.resize(total);
    results[i].top1.resize(total);
    results[i].top1_flip.resize(total);
    results[i].token_logprob.resize(total);
  }
  const Model& base_model = arms[baseline]->model();
  Workspace& work = base_model.workspace();
  Backend* backend = base_model.backend();
  const int tile = work.logits_rows();
  for (int begin = 0; begin < total; begin += tile) {
    if (cancelled) return absl::CancelledError("cancelled");
    const int rows = std::min(tile, total - begin);
    const std::vector<LogitsRow> base =
        RunTile(*arms[baseline], tokens, begin, rows, work.logits(0));
    for (size_t i = 0; i < arms.size(); ++i) {
      if (static_cast<int>(i) == baseline) {
        Store(base, base, begin, &results[i]);
        continue;
      }
      const std::vector<LogitsRow> arm =
          RunTile(*arms[i], tokens, begin, rows, work.logits(1));
      Store(base, arm, begin, &results[i]);
      backend->KlDivergence(work.logits(0), work.logits(1),
                            base_model.config().vocab_size, base, arm,
                            results[i].kl.data() + begin);
    }
  }
  QK_RETURN_IF_ERROR(backend->Synchronize());
  *seconds +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return results;
}

}  // namespace qk
