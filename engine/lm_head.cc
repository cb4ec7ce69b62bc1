#include "engine/lm_head.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "engine/model/weights.h"

namespace qk {
void LmHeadInput(const Model& model, const float* hidden, int n, float* scratch,
                 float* out) {
  const ModelConfig& c = model.config();
  const Weights& w = model.weights();
  Backend& b = *model.backend();
  float* normed = w.project_out == nullptr ? out : scratch;
  if (c.final_norm) {
    Norm(c, w.final_norm, hidden, n, normed, b);
  } else {
    b.CopyOnDevice({CopyJob{normed, hidden, int64_t{4} * n * c.hidden_size}});
  }
  if (w.project_out != nullptr) b.MatMul(normed, {{*w.project_out, out}}, n);
}

void LogitsTile(const Model& model, const float* rows,
                absl::Span<const int32_t> targets, const Workspace& work,
                int tile) {
  const ModelConfig& c = model.config();
  Backend& b = *model.backend();
  const int n = static_cast<int>(targets.size());
  float* logits = work.logits(tile);
  b.MatMul(rows, {{*model.weights().lm_head, logits}}, n);
  if (c.logit_softcap > 0) {
    b.Softcap(logits, int64_t{n} * c.vocab_size, c.logit_softcap);
  }
  b.ReduceLogits(logits, c.vocab_size, targets, work.reduced(tile));
}

LmHead::LmHead(Batch& batch) : batch_(batch) {
  const Model& model = batch.model();
  const ModelConfig& config = model.config();
  for (Batch::Entry& entry : batch.entries()) {
    if (entry.sequence == nullptr) continue;
    Sequence& s = *entry.sequence;
    if (entry.KeepsRows()) {
      const int row = batch.RowOf(entry, entry.span.first_position);
      LmHeadInput(model, batch.hidden() + int64_t{row} * config.hidden_size,
                  entry.span.rows, batch.work().normed(),
                  s.kept_rows() + int64_t{entry.span.first_position} *
                                      config.embedding_size);
    }
    s.logits_results.assign(s.logits_requests.size(), {});
    for (size_t i = 0; i < s.logits_requests.size(); ++i) {
      requests_.push_back({&s, i});
    }
  }
  absl::StatusOr<DeviceBuffer> top = batch.backend().Allocate(
      MostTopLogits() * static_cast<int64_t>(sizeof(TopLogit)));
  batch.Check(top.status());
  if (top.ok()) top_ = *std::move(top);
}

// The most TopLogits that a tile can have.
int64_t LmHead::MostTopLogits() const {
  std::vector<int> wanted;
  for (const RowRequest& from : requests_) {
    wanted.push_back(from.sequence->logits_requests[from.index].top_n);
  }
  absl::c_sort(wanted, std::greater<>());
  const int tile = batch_.work().logits_rows();
  wanted.resize(std::min(wanted.size(), static_cast<size_t>(tile)));
  return absl::c_accumulate(wanted, int64_t{0});
}

const Batch::Entry* LmHead::EntryOf(const Sequence* sequence) const {
  for (const Batch::Entry& entry : batch_.entries()) {
    if (entry.sequence == sequence) return &entry;
  }
  return nullptr;
}

void LmHead::RunTile() {
  const size_t most = static_cast<size_t>(batch_.work().logits_rows());
  Tile tile;
  for (; !done() && tile.rows.size() < most; ++next_) {
    const RowRequest& from = requests_[next_];
    const Batch::Entry* entry = EntryOf(from.sequence);
    if (entry == nullptr) continue;
    const LogitsRequest& request = from.sequence->logits_requests[from.index];
    tile.rows.push_back(
        {from, request, batch_.RowOf(*entry, request.position), Arrival()});
  }
  if (tile.rows.empty()) return;
  Compute(tile);
  Fetch(tile);
  tiles_.push_back(std::move(tile));
}

// Leaves the tile's rows in work.logits(0) and work.reduced(0).
void LmHead::Compute(Tile& tile) {
  const Model& model = batch_.model();
  const Workspace& work = batch_.work();
  float* hidden = work.lm_head_rows();
  std::vector<int> places;
  std::vector<int32_t> targets;
  for (const Row& row : tile.rows) {
    places.push_back(row.row);
    targets.push_back(row.request.target);
  }
  batch_.backend().GatherRows(batch_.hidden(), places,
                              model.config().hidden_size, hidden);
  LmHeadInput(model, hidden, static_cast<int>(places.size()),
              work.lm_head_normed(), hidden);
  LogitsTile(model, hidden, targets, work, 0);
}

void LmHead::Fetch(Tile& tile) {
  Backend& backend = batch_.backend();
  const Workspace& work = batch_.work();
  const int vocab = batch_.model().config().vocab_size;
  const LogitsRow* reduced = work.reduced(0);
  const float* logits = work.logits(0);
  std::vector<TopJob> jobs;
  TopLogit* top = top_.as<TopLogit>();
  for (Row& row : tile.rows) {
    if (row.request.top_n > 0) {
      jobs.push_back({logits, reduced, row.request.top_n, top});
      top += row.request.top_n;
    }
    if (row.request.want_logits) {
      row.logits = backend.Fetch(logits, int64_t{4} * vocab);
    }
    ++reduced;
    logits += vocab;
  }
  const auto bytes = [](const auto* begin, const auto* end) {
    return (end - begin) * static_cast<int64_t>(sizeof(*begin));
  };
  tile.reduced =
      backend.Fetch(work.reduced(0), bytes(work.reduced(0), reduced));
  if (jobs.empty()) return;
  backend.TopLogits(jobs, vocab);
  tile.top = backend.Fetch(top_.as<void>(), bytes(top_.as<TopLogit>(), top));
}

void LmHead::TakeResults() {
  // Each tile goes as its results come: both together may be large.
  while (!tiles_.empty()) {
    Take(tiles_.front());
    tiles_.pop_front();
  }
}

void LmHead::Take(const Tile& tile) const {
  size_t top = 0;  // the row's first
  for (size_t i = 0; i < tile.rows.size(); ++i) {
    const Row& row = tile.rows[i];
    const size_t first = std::exchange(top, top + row.request.top_n);
    if (EntryOf(row.from.sequence) == nullptr) continue;
    LogitsResult& to = row.from.sequence->logits_results[row.from.index];
    to.row = tile.reduced.as<LogitsRow>()[i];
    to.ids.reserve(top - first);
    to.logprobs.reserve(top - first);
    for (size_t j = first; j < top; ++j) {
      const TopLogit& likely = tile.top.as<TopLogit>()[j];
      to.ids.push_back(likely.id);
      to.logprobs.push_back(likely.logprob);
    }
    if (!row.request.want_logits) continue;
    const absl::Span<const float> logits = row.logits.as<float>();
    to.logits.assign(logits.begin(), logits.end());
  }
}

}  // namespace qk
