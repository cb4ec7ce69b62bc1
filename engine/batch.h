// A ragged batch: one (rows, hidden) tensor holds the rows of several sequences
// one after another, prefill and decode mixed.
#ifndef QKSCOPE_ENGINE_BATCH_H_
#define QKSCOPE_ENGINE_BATCH_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/backend/backend.h"
#include "engine/hooks/hook_ops.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"
#include "engine/sequence.h"
#include "engine/types/row_span.h"

namespace qk {

class Batch {
 public:
  // Bytes of the buffers that a batch of `rows` rows takes to be able to pause.
  static int64_t PauseBufferBytes(const ModelConfig& config, int64_t rows);

  struct Entry {
    Sequence* sequence = nullptr;  // nullptr: cancelled, its rows still there
    RowSpan span;
    int row_begin = 0;
    KvLayout layout = KvLayout::kShared;  // of the current layer
    int number = 0;                       // in row_table()
    FreshPages fresh;  // of the current layer; base is nullptr: none

    // Whether the sequence keeps all rows that leave the last layer.
    bool KeepsRows() const;
  };

  Batch(const Model& model, absl::Span<Sequence* const> sequences);

  const Model& model() const { return model_; }
  Backend& backend() const { return *model_.backend(); }
  const Workspace& work() const { return model_.workspace(); }
  int rows() const { return rows_; }
  // Whether any sequence is left.
  bool alive() const;
  // Whether the batch may pause within a layer.
  bool may_pause() const { return pause_buffers_ != nullptr; }
  float* hidden() const { return hidden_.as<float>(); }  // (rows, hidden)
  // Tensors that must outlive a pause within a layer: q and z
  // (rows, heads, head_dim), x (rows, hidden).
  float* q() const {
    return pause_buffers_ ? pause_buffers_->q.as<float>() : work().q();
  }
  float* z() const {
    return pause_buffers_ ? pause_buffers_->z.as<float>() : work().z();
  }
  float* x() const {
    return pause_buffers_ ? pause_buffers_->x.as<float>() : work().normed();
  }
  absl::Span<const int32_t> tokens() const { return tokens_; }
  // Each row's absolute position plus `offset`.
  std::vector<int32_t> positions(int offset) const;
  // cos and sin of each row's position, (rows, 2, rotary / 2); nullptr if the
  // layer has no RoPE.
  const float* rope(int layer) const;
  std::vector<Entry>& entries() { return entries_; }
  const RowTable& row_table() const { return *row_table_; }
  HookOps& hook_ops() { return hook_ops_; }
  // A vision tower that must run before the layers; nullptr: none is left.
  Vision* next_vision() const;
  // The first failure of an allocation or a wait.
  const absl::Status& status() const { return status_; }
  void Check(const absl::Status& status) { status_.Update(status); }

  // Forgets cancelled sequences. Between layers it removes their rows, too.
  void DropCancelled(bool within_layer);

  // --- one layer's attention, in this order
  // Chooses each sequence's layout and fills the copies of K and V that the
  // layout asks for.
  void BeginAttention(int layer);
  // Fires hook points in every sequence, on what attention reads. Rules that
  // persist act on what the cache keeps, too.
  void Hook(absl::Span<const HookPoint> points, int layer);
  // These normalise and rotate the copies of K.
  void NormCopies(const AttentionConfig& config, const float* weight,
                  float eps);
  void RopeCopies(const AttentionConfig& config, const float* table);
  // Stores K and V.
  void Append(int layer);
  // What attention reads from then on.
  KvView kv(int layer) const;
  // The rows of each part of attention. In the last layer they may be none.
  const std::vector<Range>& attention_parts() const { return parts_; }
  void HookPattern(int layer);

  // In the last layer, after attention: of hidden() and z(), leaves the rows
  // from which logits are computed, or that their sequence keeps. Nothing reads
  // the others any more.
  void KeepLastRows(const AttentionConfig& config);
  // Where hidden() has the row of a position, if that row is left.
  int RowOf(const Entry& entry, int position) const;

 private:
  HeadRows RowsIn(const Entry& entry, const float* base, int heads,
                  int head_dim) const;
  HeadRows AttentionInput(const Entry& entry, HookPoint point,
                          const AttentionConfig& config) const;
  struct PauseBuffers {
    DeviceBuffer q, z, x;
  };
  absl::Status AllocatePauseBuffers();
  // The rows that leave the last layer, ascending.
  std::vector<int> LastRows() const;
  std::vector<Range> AttendingRows(int layer) const;
  void PlanAttention(int layer);
  void MakeRowTable();
  void ListFreshPages();
  absl::Status BuildRopeTables();
  void KeepRows(absl::Span<const int> rows);
  void Gather(float* data, absl::Span<const int> rows, int width,
              float* scratch);

  const Model& model_;
  std::vector<Entry> entries_;
  std::vector<int32_t> tokens_;
  int rows_ = 0;
  // What KeepLastRows has left of the rows, if it has left some out.
  std::optional<std::vector<int>> last_rows_;
  DeviceBuffer hidden_;
  std::unique_ptr<PauseBuffers> pause_buffers_;
  std::vector<Range> parts_;
  std::unique_ptr<RowTable> row_table_;
  std::vector<FreshPages> fresh_;          // of all entries
  std::vector<DeviceBuffer> rope_tables_;  // one per model_.ropes()
  HookOps hook_ops_;
  absl::Status status_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BATCH_H_
