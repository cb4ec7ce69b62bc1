#include "engine/batch.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "engine/weights.h"

namespace qk {

Batch::Batch(const Model& model, absl::Span<Sequence* const> sequences)
    : model_(model) {
  for (Sequence* sequence : sequences) {
    Entry entry;
    entry.sequence = sequence;
    entry.step = sequence->NextStep();
    entry.row_begin = rows_;
    const absl::Span<const int32_t> tokens = sequence->NextTokens();
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    for (int i = 0; i < entry.step.rows; ++i) {
      positions_.push_back(entry.step.first_position + i);
    }
    rows_ += entry.step.rows;
    entries_.push_back(std::move(entry));
  }
  QK_CHECK(rows_ <= work().rows());
  absl::StatusOr<DeviceBuffer> hidden =
      backend().Allocate(int64_t{4} * rows_ * model.config().hidden_size);
  status_ = hidden.status();
  if (hidden.ok()) hidden_ = *std::move(hidden);
}

void Batch::DropCancelled() {
  const int width = model_.config().hidden_size;
  std::vector<Entry> kept;
  std::vector<int32_t> positions;
  for (Entry& entry : entries_) {
    if (entry.sequence->cancelled()) continue;
    const int from = entry.row_begin;
    entry.row_begin = static_cast<int>(positions.size());
    if (from != entry.row_begin) {
      backend().CopyOnDevice(hidden() + int64_t{entry.row_begin} * width,
                             hidden() + int64_t{from} * width,
                             int64_t{4} * entry.step.rows * width);
    }
    positions.insert(positions.end(), positions_.begin() + from,
                     positions_.begin() + from + entry.step.rows);
    kept.push_back(std::move(entry));
  }
  entries_ = std::move(kept);
  positions_ = std::move(positions);
  rows_ = static_cast<int>(positions_.size());
}

HeadRows Batch::View(const Entry& entry, const float* base, int heads,
                     int head_dim) const {
  return {
      const_cast<float*>(base) + int64_t{entry.row_begin} * heads * head_dim,
      entry.step.rows, heads, head_dim, entry.step.first_position};
}

// What attention reads of a sequence at a hook point.
HeadRows Batch::Seen(const Entry& entry, HookPoint point,
                     const AttentionConfig& c) const {
  const bool is_k = point == HookPoint::kK || point == HookPoint::kRotK;
  if (is_k || point == HookPoint::kV) {
    if (entry.layout == KvLayout::kShared) {
      return View(entry, is_k ? work().k() : work().v(), c.num_kv_heads,
                  c.head_dim);
    }
    const int heads =
        entry.layout == KvLayout::kExpanded ? c.num_heads : c.num_kv_heads;
    float* copy = is_k ? entry.sequence->k_copy() : entry.sequence->v_copy();
    return {copy, entry.step.rows, heads, c.head_dim,
            entry.step.first_position};
  }
  return View(entry, point == HookPoint::kZ ? work().z() : work().q(),
              c.num_heads, c.head_dim);
}

void Batch::BeginAttention(int layer) {
  const AttentionConfig& c = model_.config().layers[layer].attention;
  for (Entry& entry : entries_) {
    entry.layout = entry.sequence->disruptor().layout(layer);
    if (entry.layout == KvLayout::kShared) continue;
    const int heads = Seen(entry, HookPoint::kK, c).heads;
    backend().ExpandHeads(View(entry, work().k(), c.num_kv_heads, c.head_dim),
                          heads, entry.sequence->k_copy());
    backend().ExpandHeads(View(entry, work().v(), c.num_kv_heads, c.head_dim),
                          heads, entry.sequence->v_copy());
  }
}

void Batch::Hook(HookPoint point, int layer) {
  const AttentionConfig& c = model_.config().layers[layer].attention;
  for (Entry& entry : entries_) {
    entry.sequence->Hook(point, layer, entry.step, Seen(entry, point, c));
    if (entry.layout == KvLayout::kShared || TensorOf(point) == Qkv::kQ) {
      continue;
    }
    const float* kept = point == HookPoint::kV ? work().v() : work().k();
    entry.sequence->disruptor().ApplyToCache(
        point, layer, entry.step,
        View(entry, kept, c.num_kv_heads, c.head_dim));
  }
}

void Batch::RopeCopies(const AttentionConfig& c, const float* table) {
  for (Entry& entry : entries_) {
    if (entry.layout == KvLayout::kShared) continue;
    const HeadRows k = Seen(entry, HookPoint::kK, c);
    backend().Rope(k.data, k.heads, c.head_dim, c.rope.rotary_dims, table,
                   absl::MakeConstSpan(positions_)
                       .subspan(entry.row_begin, entry.step.rows));
  }
}

void Batch::Append(int layer) {
  const AttentionConfig& c = model_.config().layers[layer].attention;
  const ComputeType type = model_.compute();
  for (Entry& entry : entries_) {
    entry.pages = entry.sequence->CachePages(layer);
    backend().AppendKv(View(entry, work().k(), c.num_kv_heads, c.head_dim),
                       View(entry, work().v(), c.num_kv_heads, c.head_dim),
                       type, entry.pages.data());
    if (entry.layout == KvLayout::kShared) continue;
    const HeadRows k = Seen(entry, HookPoint::kK, c);
    entry.pages = entry.sequence->FreshPages(layer, k.heads, entry.step);
    backend().AppendKv(k, Seen(entry, HookPoint::kV, c), type,
                       entry.pages.data());
  }
}

std::vector<AttentionRows> Batch::attention_rows() const {
  std::vector<AttentionRows> rows;
  for (const Entry& entry : entries_) {
    rows.push_back({entry.row_begin, entry.step.rows, entry.step.first_position,
                    entry.pages.data()});
  }
  return rows;
}

void Batch::HookPattern(int layer) {
  const std::vector<AttentionRows> rows = attention_rows();
  for (size_t i = 0; i < entries_.size(); ++i) {
    entries_[i].sequence->HookPattern(layer, entries_[i].step, work().q(),
                                      rows[i]);
  }
}

void Batch::Head() {
  const ModelConfig& config = model_.config();
  const Weights& w = model_.weights();
  std::vector<std::pair<Entry*, int>> requests;
  for (Entry& entry : entries_) {
    Sequence& s = *entry.sequence;
    if (s.kept_hidden() != nullptr && entry.step.phase == Phase::kPrefill) {
      backend().RmsNorm(
          hidden() + int64_t{entry.row_begin} * config.hidden_size,
          w.final_norm.as<float>(), config.norm_eps, entry.step.rows,
          config.hidden_size,
          s.kept_hidden() +
              int64_t{entry.step.first_position} * config.hidden_size);
    }
    s.head_results.assign(s.head_requests.size(), {});
    for (size_t i = 0; i < s.head_requests.size(); ++i) {
      requests.emplace_back(&entry, static_cast<int>(i));
    }
  }
  const size_t tile = static_cast<size_t>(work().logits_rows());
  for (size_t i = 0; i < requests.size(); i += tile) {
    RunHeadTile(absl::MakeConstSpan(requests).subspan(
        i, std::min(tile, requests.size() - i)));
  }
}

void Batch::RunHeadTile(absl::Span<const std::pair<Entry*, int>> requests) {
  const ModelConfig& config = model_.config();
  const int width = config.hidden_size;
  const int n = static_cast<int>(requests.size());
  float* rows = work().head_rows();
  std::vector<LogitsRow> reduced(n);
  for (int i = 0; i < n; ++i) {
    const Entry& entry = *requests[i].first;
    const HeadRequest& request =
        entry.sequence->head_requests[requests[i].second];
    const int64_t row =
        entry.row_begin + request.position - entry.step.first_position;
    backend().CopyOnDevice(rows + int64_t{i} * width, hidden() + row * width,
                           int64_t{4} * width);
    reduced[i].target = request.target;
  }
  const Weights& w = model_.weights();
  backend().RmsNorm(rows, w.final_norm.as<float>(), config.norm_eps, n, width,
                    rows);
  float* logits = work().logits(0);
  backend().MatMul(rows, *w.lm_head, n, logits);
  backend().ReduceLogits(logits, config.vocab_size, absl::MakeSpan(reduced));
  for (int i = 0; i < n; ++i) {
    Sequence& s = *requests[i].first->sequence;
    const HeadRequest& request = s.head_requests[requests[i].second];
    HeadResult& result = s.head_results[requests[i].second];
    result.row = reduced[i];
    const float* row = logits + int64_t{i} * config.vocab_size;
    if (request.top_n > 0) {
      result.ids.resize(request.top_n);
      result.logprobs.resize(request.top_n);
      backend().TopLogits(row, config.vocab_size, request.top_n,
                          reduced[i].log_sum_exp, result.ids.data(),
                          result.logprobs.data());
    }
    if (request.want_logits) {
      result.logits.resize(config.vocab_size);
      backend().Download(result.logits.data(), row,
                         int64_t{4} * config.vocab_size);
    }
  }
}

}  // namespace qk
