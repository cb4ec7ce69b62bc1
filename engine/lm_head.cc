#include "engine/lm_head.h"

#include <vector>

#include "engine/model/weights.h"

namespace qk {
namespace {

// Downloads one row's results. The sequence must not move `result` before the
// pass has ended.
void DownloadResult(const LogitsRequest& request, const LogitsRow* reduced,
                    const float* logits, const Model& model,
                    LogitsResult* result) {
  Backend& backend = *model.backend();
  const int vocab = model.config().vocab_size;
  backend.Download(&result->row, reduced, sizeof(LogitsRow));
  if (request.top_n > 0) {
    result->ids.resize(request.top_n);
    result->logprobs.resize(request.top_n);
    backend.TopLogits(logits, vocab, reduced, request.top_n, result->ids.data(),
                      result->logprobs.data());
  }
  if (request.want_logits) {
    result->logits.resize(vocab);
    backend.Download(result->logits.data(), logits, int64_t{4} * vocab);
  }
}

}  // namespace

void LmHeadInput(const Model& model, const float* hidden, int n, float* scratch,
                 float* out) {
  const ModelConfig& c = model.config();
  const Weights& w = model.weights();
  Backend& b = *model.backend();
  float* normed = w.project_out == nullptr ? out : scratch;
  if (c.final_norm) {
    Norm(c, w.final_norm, hidden, n, normed, b);
  } else {
    b.CopyOnDevice(normed, hidden, int64_t{4} * n * c.hidden_size);
  }
  if (w.project_out != nullptr) b.MatMul(normed, *w.project_out, n, out);
}

void LogitsTile(const Model& model, const float* rows,
                absl::Span<const int32_t> targets, const Workspace& work,
                int tile) {
  const ModelConfig& c = model.config();
  Backend& b = *model.backend();
  const int n = static_cast<int>(targets.size());
  float* logits = work.logits(tile);
  b.MatMul(rows, *model.weights().lm_head, n, logits);
  if (c.logit_softcap > 0) {
    b.Softcap(logits, int64_t{n} * c.vocab_size, c.logit_softcap);
  }
  b.Upload(work.targets(), targets.data(), int64_t{4} * n);
  b.ReduceLogits(logits, c.vocab_size, n, work.targets(), work.reduced(tile));
}

LmHead::LmHead(Batch& batch) : batch_(batch) {
  const Model& model = batch.model();
  const ModelConfig& config = model.config();
  for (Batch::Entry& entry : batch.entries()) {
    Sequence& s = *entry.sequence;
    if (s.kept_rows() != nullptr && entry.span.phase == Phase::kPrefill &&
        !entry.span.recomputed) {
      LmHeadInput(
          model, batch.hidden() + int64_t{entry.row_begin} * config.hidden_size,
          entry.span.rows, batch.work().normed(),
          s.kept_rows() +
              int64_t{entry.span.first_position} * config.embedding_size);
    }
    s.logits_results.assign(s.logits_requests.size(), {});
    for (size_t i = 0; i < s.logits_requests.size(); ++i) {
      requests_.push_back({&s, i});
    }
  }
}

void LmHead::RunTile() {
  const size_t tile = static_cast<size_t>(batch_.work().logits_rows());
  std::vector<Row> rows;
  for (; !done() && rows.size() < tile; ++next_) {
    const RowRequest& from = requests_[next_];
    for (const Batch::Entry& entry : batch_.entries()) {
      if (entry.sequence != from.sequence) continue;
      const LogitsRequest& request = from.sequence->logits_requests[from.index];
      rows.push_back({from, entry.row_begin + request.position -
                                entry.span.first_position});
    }
  }
  if (!rows.empty()) Compute(rows);
}

void LmHead::Compute(absl::Span<const Row> rows) {
  const Model& model = batch_.model();
  Backend& backend = batch_.backend();
  const int64_t width = model.config().hidden_size;
  const int n = static_cast<int>(rows.size());
  const Workspace& work = batch_.work();
  float* hidden = work.lm_head_rows();
  std::vector<int32_t> targets;
  for (int i = 0; i < n; ++i) {
    const RowRequest& from = rows[i].from;
    backend.CopyOnDevice(hidden + i * width,
                         batch_.hidden() + rows[i].row * width, 4 * width);
    targets.push_back(from.sequence->logits_requests[from.index].target);
  }
  LmHeadInput(model, hidden, n, work.lm_head_normed(), hidden);
  LogitsTile(model, hidden, targets, work, 0);
  const int64_t vocab = model.config().vocab_size;
  for (int i = 0; i < n; ++i) {
    Sequence& sequence = *rows[i].from.sequence;
    const size_t index = rows[i].from.index;
    DownloadResult(sequence.logits_requests[index], work.reduced(0) + i,
                   work.logits(0) + i * vocab, model,
                   &sequence.logits_results[index]);
  }
}

}  // namespace qk
