#include "engine/batch.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "engine/base/check.h"
#include "engine/hooks/run_hooks.h"
#include "engine/types/rope_rows.h"
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
    entries_.push_back(std::move(entry));
  }
  QK_CHECK(rows_ <= work().rows());
  absl::StatusOr<DeviceBuffer> hidden =
      backend().Allocate(int64_t{4} * rows_ * model.config().hidden_size);
  status_ = hidden.status();
  if (!hidden.ok()) return;
  hidden_ = *std::move(hidden);
  if (rows_ > kStepRows) status_ = AllocatePauseBuffers();
  if (status_.ok()) status_ = BuildRopeTables();
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
  for (const RopeConfig& rope : model_.ropes()) {
    const size_t width = rope.rotary_dims;
    std::vector<float> table(rows_ * width);
    for (const Entry& entry : entries_) {
      const RowSpan& span = entry.span;
      std::vector<double> frequencies = rope.FrequenciesFor(span.rope_length);
      for (int i = 0; i < span.rows; ++i) {
        const int position = span.first_position + i;
        // A generated token does not know of those after it.
        if (span.phase == Phase::kDecode && span.rows > 1) {
          frequencies =
              rope.FrequenciesFor(entry.sequence->rope_length(position + 1));
        }
        FillRopeRow(rope, frequencies, entry.sequence->rope_position(position),
                    table.data() + (entry.row_begin + i) * width);
      }
    }
    const int64_t bytes = static_cast<int64_t>(table.size() * sizeof(float));
    QK_ASSIGN_OR_RETURN(DeviceBuffer device, backend().Allocate(bytes));
    backend().Upload(device.as<void>(), table.data(), bytes);
    rope_tables_.push_back(std::move(device));
  }
  return absl::OkStatus();
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

void Batch::KeepRows(absl::Span<const int> rows) {
  rows_ = static_cast<int>(rows.size());
  const auto keep = [&](float* data, int width, float* scratch) {
    backend().GatherRows(data, rows, width, scratch);
    backend().CopyOnDevice(
        {CopyJob{data, scratch, int64_t{4} * rows_ * width}});
  };
  keep(hidden(), model_.config().hidden_size, work().normed());
  for (size_t i = 0; i < rope_tables_.size(); ++i) {
    keep(rope_tables_[i].as<float>(), model_.ropes()[i].rotary_dims,
         work().q());
  }
}

void Batch::DropCancelled(bool within_layer) {
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr || !entry.sequence->cancelled()) continue;
    entry.sequence = nullptr;
    entry.pages.clear();
  }
  if (within_layer) return;  // rows must not move within a layer
  std::vector<Entry> kept;
  std::vector<int> rows;
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    const int from =
        std::exchange(entry.row_begin, static_cast<int>(rows.size()));
    for (int i = 0; i < entry.span.rows; ++i) rows.push_back(from + i);
    kept.push_back(std::move(entry));
  }
  entries_ = std::move(kept);
  if (static_cast<int>(rows.size()) != rows_) KeepRows(rows);
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
  PlanAttention();
  const AttentionConfig& c = model_.config().layers[layer].attention;
  std::vector<ExpandJob> copies;
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    entry.layout = entry.sequence->disruptor().layout(layer);
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
  const ComputeType type = model_.compute();
  for (Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    entry.pages = entry.sequence->CachePages(layer);
    backend().AppendKv(RowsIn(entry, work().k(), c.num_kv_heads, c.head_dim),
                       RowsIn(entry, work().v(), c.num_kv_heads, c.head_dim),
                       type, entry.pages.data());
    if (entry.layout == KvLayout::kShared) continue;
    const HeadRows k = AttentionInput(entry, HookPoint::kK, c);
    entry.pages = entry.sequence->FreshPages(layer, k.heads, entry.span);
    backend().AppendKv(k, AttentionInput(entry, HookPoint::kV, c), type,
                       entry.pages.data());
  }
}

void Batch::PlanAttention() {
  parts_ = {0};
  int64_t keys = 0;
  for (const Entry& entry : entries_) {
    for (int i = 0; i < entry.span.rows && may_pause(); ++i) {
      const int next = entry.row_begin + i + 1;
      keys += entry.span.first_position + i + 1;
      if (keys < int64_t{kStepRows} * kStepKeys &&
          next - parts_.back() < kStepRows) {
        continue;
      }
      parts_.push_back(next);
      keys = 0;
    }
  }
  if (parts_.back() < rows_) parts_.push_back(rows_);
}

// Each sequence's rows in the part.
std::vector<AttentionRows> Batch::attention_rows(int part) const {
  const int begin = parts_[part], end = parts_[part + 1];
  std::vector<AttentionRows> rows;
  for (const Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    const int first = std::max(begin, entry.row_begin);
    const int last = std::min(end, entry.row_begin + entry.span.rows);
    if (first >= last) continue;
    rows.push_back({first, last - first,
                    entry.span.first_position + first - entry.row_begin,
                    entry.pages.data()});
  }
  return rows;
}

void Batch::HookPattern(int layer) {
  for (const Entry& entry : entries_) {
    if (entry.sequence == nullptr) continue;
    const AttentionRows rows = {entry.row_begin, entry.span.rows,
                                entry.span.first_position, entry.pages.data()};
    entry.sequence->HookPattern(layer, entry.span, q(), rows, hook_ops_);
  }
}

}  // namespace qk
