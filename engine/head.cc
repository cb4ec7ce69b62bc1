#include "engine/head.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/weights.h"

namespace qk {
namespace {

// A row of a sequence whose logits are asked for, and the request's number.
using Asked = std::pair<Batch::Entry*, size_t>;

// Hands one row's results to its sequence.
void Answer(const Model& model, const Asked& asked, const LogitsRow& reduced,
            const float* logits) {
  Backend& backend = *model.backend();
  const int vocab = model.config().vocab_size;
  Sequence& sequence = *asked.first->sequence;
  const HeadRequest& request = sequence.head_requests[asked.second];
  HeadResult& result = sequence.head_results[asked.second];
  result.row = reduced;
  if (request.top_n > 0) {
    result.ids.resize(request.top_n);
    result.logprobs.resize(request.top_n);
    backend.TopLogits(logits, vocab, request.top_n, reduced.log_sum_exp,
                      result.ids.data(), result.logprobs.data());
  }
  if (request.want_logits) {
    result.logits.resize(vocab);
    backend.Download(result.logits.data(), logits, int64_t{4} * vocab);
  }
}

// At most Workspace::logits_rows rows.
void RunTile(Batch& batch, absl::Span<const Asked> tile) {
  const Model& model = batch.model();
  Backend& backend = batch.backend();
  const int64_t width = model.config().hidden_size;
  const int n = static_cast<int>(tile.size());
  float* rows = batch.work().head_rows();
  std::vector<LogitsRow> reduced(n);
  for (int i = 0; i < n; ++i) {
    const Batch::Entry& entry = *tile[i].first;
    const HeadRequest& request = entry.sequence->head_requests[tile[i].second];
    const int64_t row =
        entry.row_begin + request.position - entry.step.first_position;
    backend.CopyOnDevice(rows + i * width, batch.hidden() + row * width,
                         4 * width);
    reduced[i].target = request.target;
  }
  HeadRowsOf(model, rows, n, batch.work().head_normed(), rows);
  float* logits = batch.work().logits(0);
  Logits(model, rows, n, logits);
  const int64_t vocab = model.config().vocab_size;
  backend.ReduceLogits(logits, vocab, absl::MakeSpan(reduced));
  for (int i = 0; i < n; ++i) {
    Answer(model, tile[i], reduced[i], logits + i * vocab);
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

void RunHead(Batch& batch) {
  const Model& model = batch.model();
  const ModelConfig& config = model.config();
  std::vector<Asked> asked;
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
      asked.emplace_back(&entry, i);
    }
  }
  const size_t tile = static_cast<size_t>(batch.work().logits_rows());
  for (size_t i = 0; i < asked.size(); i += tile) {
    RunTile(batch, absl::MakeConstSpan(asked).subspan(
                       i, std::min(tile, asked.size() - i)));
  }
}

}  // namespace qk
