#include "engine/batch.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/algorithm/container.h"
#include "engine/base/check.h"
#include "engine/hooks/capture_timer.h"
#include "engine/hooks/run_hooks.h"
#include "engine/types/rule_shape.h"

namespace qk {

Batch::Batch(const Model& model, absl::Span<Sequence* const> sequences)
    : model_(model), hook_ops_(model.backend(), work().staging()) {
  for (Sequence* sequence : sequences) {
    Entry entry;
    entry.sequence = sequence;
    entry.span = sequence->NextSpan();
    entry.row_begin = rows_;
    const absl::Span<const int32_t> tokens = sequence->NextTokens();
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    rows_ += entry.span.rows;
    entries_.push_back(entry);
  }
  QK_CHECK(rows_ <= work().rows());
  absl::StatusOr<DeviceBuffer> hidden =
      backend().Allocate(int64_t{4} * rows_ * model.config().hidden_size);
  status_ = hidden.status();
  if (!hidden.ok()) return;
  hidden_ = *std::move(hidden);
  if (rows_ > backend().tiles().step_rows) status_ = AllocatePauseBuffers();
  if (status_.ok()) status_ = BuildRopeTables();
  if (status_.ok()) MakeRowTable();
}

int64_t Batch::PauseBufferBytes(const ModelConfig& config, int64_t rows) {
  return 4 * rows *
         (2 * Workspace::WidestQuery(config) + Workspace::WidestHidden(config));
}

absl::Status Batch::AllocatePauseBuffers() {
  auto buffers = std::make_unique<PauseBuffers>();
  const int64_t row = 4 * int64_t{rows_};
  const int64_t heads = row * Workspace::WidestQuery(model_.config());
  const int64_t hidden = row * Workspace::WidestHidden(model_.config());
  QK_ASSIGN_OR_RETURN(buffers->q, backend().Allocate(heads));
  QK_ASSIGN_OR_RETURN(buffers->z, backend().Allocate(heads));
  QK_ASSIGN_OR_RETURN(buffers->x, backend().Allocate(hidden));
  pause_buffers_ = std::move(buffers);
  return absl::OkStatus();
}

bool Batch::alive() const {
  return absl::c_any_of(entries_,
                        [](const Entry& e) { return e.sequence != nullptr; });
}

std::vector<int32_t> Batch::positions(int offset) const {
  std::vector<int32_t> positions;
  for (const Entry& entry : entries_) {
    for (int i = 0; i < entry.span.rows; ++i) {
      positions.push_back(entry.span.first_position + i + offset);
    }
  }
  return positions;
}

absl::Status Batch::BuildRopeTables() {
  std::vector<RopePosition> positions;  // (rows)
  for (const Entry& entry : entries_) {
    for (int i = 0; i < entry.span.rows; ++i) {
      positions.push_back(
          entry.sequence->rope_position(entry.span.first_position + i));
    }
  }
  for (const RopeConfig& rope : model_.ropes()) {
    std::deque<std::vector<double>> frequencies;  // of each of `all`
    std::vector<RopeRows> all;
    const auto add = [&](int row, int rows, int length) {
      frequencies.push_back(rope.FrequenciesFor(length));
      all.push_back({row, absl::MakeConstSpan(positions).subspan(row, rows),
                     frequencies.back()});
    };
    for (const Entry& entry : entries_) {
      const RowSpan& span = entry.span;
      if (span.phase == Phase::kPrefill || span.rows == 1) {
        add(entry.row_begin, span.rows, span.rope_length);
        continue;
      }
      // A generated token does not know of those after it.
      for (int i = 0; i < span.rows; ++i) {
        add(entry.row_begin + i, 1,
            entry.sequence->rope_length(span.first_position + i + 1));
      }
    }
    QK_ASSIGN_OR_RETURN(
        DeviceBuffer table,
        backend().Allocate(int64_t{4} * rows_ * rope.rotary_dims));
    backend().MakeRopeTable(rope, all, table.as<float>());
    rope_tables_.push_back(std::move(table));
  }
  return absl::OkStatus();
}

// Numbers the sequences that are left.
void Batch::MakeRowTable() {
  std::vector<SequenceRows> all;
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    entry.number = static_cast<int>(all.size());
    all.push_back(entry.sequence->rows(entry.row_begin, entry.span));
  }
  absl::StatusOr<std::unique_ptr<RowTable>> table = backend().MakeRowTable(all);
  status_.Update(table.status());
  if (table.ok()) row_table_ = *std::move(table);
  ListFreshPages();
}

void Batch::ListFreshPages() {
  fresh_.clear();
  for (const Entry& entry : entries_) {
    if (entry.sequence == nullptr || entry.fresh.base == nullptr) continue;
    fresh_.push_back(entry.fresh);
    fresh_.back().sequence = entry.number;
  }
}

const float* Batch::rope(int layer) const {
  const int index = model_.rope_of_layer(layer);
  return index < 0 ? nullptr : rope_tables_[index].as<float>();
}

Vision* Batch::next_vision() const {
  for (const Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    Vision* vision = entry.sequence->vision().get();
    if (vision != nullptr && !vision->done()) return vision;
  }
  return nullptr;
}

// data = its rows of this list.
void Batch::Gather(float* data, absl::Span<const int> rows, int width,
                   float* scratch) {
  backend().GatherRows(data, rows, width, scratch);
  backend().CopyOnDevice({CopyJob{
      data, scratch, int64_t{4} * static_cast<int64_t>(rows.size()) * width}});
}

void Batch::KeepRows(absl::Span<const int> rows) {
  rows_ = static_cast<int>(rows.size());
  Gather(hidden(), rows, model_.config().hidden_size, work().normed());
  for (size_t i = 0; i < rope_tables_.size(); ++i) {
    Gather(rope_tables_[i].as<float>(), rows, model_.ropes()[i].rotary_dims,
           work().q());
  }
}

std::vector<int> Batch::LastRows() const {
  std::vector<int> rows;
  for (const Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    std::vector<bool> wanted(entry.span.rows, entry.KeepsRows());
    for (const LogitsRequest& request : entry.sequence->logits_requests) {
      wanted[request.position - entry.span.first_position] = true;
    }
    for (int i = 0; i < entry.span.rows; ++i) {
      if (wanted[i]) rows.push_back(entry.row_begin + i);
    }
  }
  return rows;
}

void Batch::KeepLastRows(const AttentionConfig& config) {
  std::vector<int> rows = LastRows();
  if (static_cast<int>(rows.size()) == rows_) return;
  rows_ = static_cast<int>(rows.size());
  if (rows_ > 0) {
    Gather(hidden(), rows, model_.config().hidden_size, work().normed());
    Gather(z(), rows, config.q_size(), q());
  }
  last_rows_ = std::move(rows);
}

int Batch::RowOf(const Entry& entry, int position) const {
  const int row = entry.row_begin + position - entry.span.first_position;
  if (!last_rows_.has_value()) return row;
  const auto at = absl::c_lower_bound(*last_rows_, row);
  QK_CHECK(at != last_rows_->end() && *at == row);
  return static_cast<int>(at - last_rows_->begin());
}

bool Batch::Entry::KeepsRows() const {
  return sequence->kept_rows() != nullptr && span.phase == Phase::kPrefill &&
         !span.recomputed;
}

void Batch::DropCancelled(bool within_layer) {
  bool any = false;
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr || !entry.sequence->cancelled()) continue;
    entry.sequence = nullptr;
    any = true;
  }
  if (last_rows_.has_value()) return;  // they stay where RowOf finds them
  if (within_layer) {                  // rows must not move within a layer
    if (any) MakeRowTable();
    return;
  }
  std::vector<Entry> kept;
  std::vector<int> rows;
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    const int from =
        std::exchange(entry.row_begin, static_cast<int>(rows.size()));
    for (int i = 0; i < entry.span.rows; ++i) rows.push_back(from + i);
    kept.push_back(entry);
  }
  entries_ = std::move(kept);
  if (entries_.empty() || static_cast<int>(rows.size()) == rows_) return;
  KeepRows(rows);
  MakeRowTable();
}

HeadRows Batch::RowsIn(const Entry& entry, const float* base, int heads,
                       int head_dim) const {
  return {
      const_cast<float*>(base) + int64_t{entry.row_begin} * heads * head_dim,
      entry.span.rows, heads, head_dim, entry.span.first_position};
}

// The rows that attention reads from a sequence at a hook point.
HeadRows Batch::AttentionInput(const Entry& entry, HookPoint point,
                               const AttentionConfig& c) const {
  const bool is_k = point == HookPoint::kK || point == HookPoint::kRotK;
  if (is_k || point == HookPoint::kV) {
    if (entry.layout == KvLayout::kShared) {
      return RowsIn(entry, is_k ? work().k() : work().v(), c.num_kv_heads,
                    c.head_dim);
    }
    const int heads =
        entry.layout == KvLayout::kExpanded ? c.num_heads : c.num_kv_heads;
    float* copy = is_k ? entry.sequence->k_copy() : entry.sequence->v_copy();
    return {copy, entry.span.rows, heads, c.head_dim,
            entry.span.first_position};
  }
  return RowsIn(entry, point == HookPoint::kZ ? z() : q(), c.num_heads,
                c.head_dim);
}

void Batch::BeginAttention(int layer) {
  PlanAttention(layer);
  const AttentionConfig& c = model_.config().layers[layer].attention;
  std::vector<ExpandJob> copies;
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    entry.layout = entry.sequence->disruptor().layout(layer);
    entry.fresh = {};
    if (entry.layout == KvLayout::kShared) continue;
    const int heads = AttentionInput(entry, HookPoint::kK, c).heads;
    copies.push_back({RowsIn(entry, work().k(), c.num_kv_heads, c.head_dim),
                      heads, entry.sequence->k_copy()});
    copies.push_back({RowsIn(entry, work().v(), c.num_kv_heads, c.head_dim),
                      heads, entry.sequence->v_copy()});
  }
  if (!copies.empty()) backend().ExpandHeads(copies);
}

void Batch::Hook(absl::Span<const HookPoint> points, int layer) {
  const AttentionConfig& c = model_.config().layers[layer].attention;
  std::vector<HookedTensor> tensors;
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    for (HookPoint point : points) {
      HeadRows kept;
      if (entry.layout != KvLayout::kShared && TensorOf(point) != Qkv::kQ) {
        const bool is_v = point == HookPoint::kV;
        kept = RowsIn(entry, is_v ? work().v() : work().k(), c.num_kv_heads,
                      c.head_dim);
      }
      tensors.push_back(entry.sequence->Hook(
          point, entry.span, AttentionInput(entry, point, c), kept));
    }
  }
  RunHooks(layer, tensors, hook_ops_);
}

void Batch::NormCopies(const AttentionConfig& c, const float* weight,
                       float eps) {
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    if (entry.layout == KvLayout::kShared) continue;
    const HeadRows k = AttentionInput(entry, HookPoint::kK, c);
    backend().RmsNorm(k.data, weight, eps, k.rows * k.heads, k.head_dim,
                      k.data);
  }
}

void Batch::RopeCopies(const AttentionConfig& c, const float* table) {
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    if (entry.layout == KvLayout::kShared) continue;
    const HeadRows k = AttentionInput(entry, HookPoint::kK, c);
    backend().Rope(k.data, k.rows, k.heads, k.head_dim, c.rope.rotary_dims,
                   table + int64_t{entry.row_begin} * c.rope.rotary_dims);
  }
}

void Batch::Append(int layer) {
  const AttentionConfig& c = model_.config().layers[layer].attention;
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr || entry.layout == KvLayout::kShared)
      continue;
    entry.fresh = entry.sequence->fresh_pages(
        layer, AttentionInput(entry, HookPoint::kK, c).heads);
  }
  ListFreshPages();
  backend().AppendKv(work().k(), work().v(), c.head_dim, kv(layer));
}

KvView Batch::kv(int layer) const {
  return {row_table_.get(), model_.pages().part(layer), fresh_,
          model_.compute()};
}

// In the last layer, rows that nothing reads any more get no attention, if they
// are many. Each range costs the backend a call.
std::vector<Range> Batch::AttendingRows(int layer) const {
  constexpr int kMany = 256;
  const auto captured = [&](const Entry& entry) {
    return entry.sequence != nullptr &&
           entry.sequence->capture().Wants(HookPoint::kZ, layer, entry.span);
  };
  if (layer + 1 < model_.config().num_layers() ||
      absl::c_any_of(entries_, captured)) {
    return {{0, rows_}};
  }
  std::vector<Range> ranges;
  for (int row : LastRows()) {
    if (ranges.empty() || row - ranges.back().end >= kMany) {
      ranges.push_back({row, row});
    }
    ranges.back().end = row + 1;
  }
  return ranges;
}

void Batch::PlanAttention(int layer) {
  parts_.clear();
  const Tiles tiles = backend().tiles();
  for (const Range& range : AttendingRows(layer)) {
    int64_t keys = 0;
    int begin = range.begin;
    for (const Entry& entry : entries_) {
      const int first = std::max(range.begin, entry.row_begin);
      const int end = std::min(range.end, entry.row_begin + entry.span.rows);
      for (int row = first; row < end && may_pause(); ++row) {
        keys += entry.span.first_position + row - entry.row_begin + 1;
        if (keys < int64_t{tiles.step_rows} * tiles.step_keys &&
            row + 1 - begin < tiles.step_rows) {
          continue;
        }
        parts_.push_back({std::exchange(begin, row + 1), row + 1});
        keys = 0;
      }
    }
    if (begin < range.end) parts_.push_back({begin, range.end});
  }
}

void Batch::HookPattern(int layer) {
  const AttentionConfig& c = model_.config().layers[layer].attention;
  CaptureTimer timer;
  std::vector<PatternJob> jobs;
  const auto run = [&] {
    if (!jobs.empty()) backend().AttentionPattern(q(), c, kv(layer), jobs);
    jobs.clear();
  };
  for (const Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    const int64_t bytes = entry.sequence->HookPattern(layer, entry.span);
    if (bytes == 0) continue;
    if (!hook_ops_.Fits(bytes)) {
      run();
      hook_ops_.Fetch();
    }
    jobs.push_back(
        entry.sequence->capture().RecordPattern(layer, entry.span, hook_ops_));
    jobs.back().sequence = entry.number;
    timer.Add(&entry.sequence->capture(), bytes);
  }
  run();
  timer.Charge();
}

}  // namespace qk
