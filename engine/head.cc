#include "engine/head.h"

#include <vector>

#include "engine/model/weights.h"

namespace qk {
namespace {

// Hands one row's results to its sequence.
void Answer(const HeadRequest& request, const LogitsRow& reduced,
            const float* logits, const Model& model, HeadResult* result) {
  Backend& backend = *model.backend();
  const int vocab = model.config().vocab_size;
  result->row = reduced;
  if (request.top_n > 0) {
    result->ids.resize(request.top_n);
    result->logprobs.resize(request.top_n);
    backend.TopLogits(logits, vocab, request.top_n, reduced.log_sum_exp,
                      result->ids.data(), result->logprobs.data());
  }
  if (request.want_logits) {
    result->logits.resize(vocab);
    backend.Download(result->logits.data(), logits, int64_t{4} * vocab);
  }
}

}  // namespace

void HeadRowsOf(const Model& model, const float* hidden, int n, float* scratch,
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

void Logits(const Model& model, const float* rows, int n, float* logits) {
  const ModelConfig& c = model.config();
  Backend& b = *model.backend();
  b.MatMul(rows, *model.weights().lm_head, n, logits);
  if (c.logit_softcap > 0) {
    b.Softcap(logits, int64_t{n} * c.vocab_size, c.logit_softcap);
  }
}

Head::Head(Batch& batch) : batch_(batch) {
  const Model& model = batch.model();
  const ModelConfig& config = model.config();
  for (Batch::Entry& entry : batch.entries()) {
    Sequence& s = *entry.sequence;
    if (s.kept_rows() != nullptr && entry.step.phase == Phase::kPrefill) {
      HeadRowsOf(model,
                 batch.hidden() + int64_t{entry.row_begin} * config.hidden_size,
                 entry.step.rows, batch.work().normed(),
                 s.kept_rows() + int64_t{entry.step.first_position} *
                                     config.embedding_size);
    }
    s.head_results.assign(s.head_requests.size(), {});
    for (size_t i = 0; i < s.head_requests.size(); ++i) {
      asked_.push_back({&s, i});
    }
  }
}

void Head::RunTile() {
  const size_t tile = static_cast<size_t>(batch_.work().logits_rows());
  std::vector<Row> rows;
  for (; !done() && rows.size() < tile; ++next_) {
    const Asked& asked = asked_[next_];
    for (const Batch::Entry& entry : batch_.entries()) {
      if (entry.sequence != asked.sequence) continue;
      const HeadRequest& request = asked.sequence->head_requests[asked.request];
      rows.push_back({asked, entry.row_begin + request.position -
                                 entry.step.first_position});
    }
  }
  if (!rows.empty()) Compute(rows);
}

void Head::Compute(absl::Span<const Row> rows) {
  const Model& model = batch_.model();
  Backend& backend = batch_.backend();
  const int64_t width = model.config().hidden_size;
  const int n = static_cast<int>(rows.size());
  float* hidden = batch_.work().head_rows();
  std::vector<LogitsRow> reduced(n);
  for (int i = 0; i < n; ++i) {
    const Asked& asked = rows[i].asked;
    backend.CopyOnDevice(hidden + i * width,
                         batch_.hidden() + rows[i].row * width, 4 * width);
    reduced[i].target = asked.sequence->head_requests[asked.request].target;
  }
  HeadRowsOf(model, hidden, n, batch_.work().head_normed(), hidden);
  float* logits = batch_.work().logits(0);
  Logits(model, hidden, n, logits);
  const int64_t vocab = model.config().vocab_size;
  backend.ReduceLogits(logits, vocab, absl::MakeSpan(reduced));
  for (int i = 0; i < n; ++i) {
    Sequence& sequence = *rows[i].asked.sequence;
    const size_t request = rows[i].asked.request;
    Answer(sequence.head_requests[request], reduced[i], logits + i * vocab,
           model, &sequence.head_results[request]);
  }
}

}  // namespace qk
