// A ragged batch: the rows of several sequences, prefill and decode mixed, one
// after another in one (rows, hidden) tensor.
#ifndef QKSCOPE_ENGINE_BATCH_H_
#define QKSCOPE_ENGINE_BATCH_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/backend/backend.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"
#include "engine/sequence.h"
#include "engine/types/pass_step.h"

namespace qk {

class Batch {
 public:
  // A batch of more rows may be left within a layer. Its attention is computed
  // in parts of as many rows, or fewer that see more than kStepKeys keys.
  static constexpr int kStepRows = 512;
  static constexpr int kStepKeys = 2048;
  // Of buffers that such a batch of `rows` rows takes for itself.
  static int64_t OwnBytes(const ModelConfig& config, int64_t rows);

  struct Entry {
    Sequence* sequence = nullptr;  // nullptr: cancelled within the layer
    PassStep step;
    int row_begin = 0;
    KvLayout layout = KvLayout::kShared;  // of the layer in work
    std::vector<KvPage> pages;            // that attention reads there
  };

  Batch(const Model& model, absl::Span<Sequence* const> sequences);

  const Model& model() const { return model_; }
  Backend& backend() const { return *model_.backend(); }
  const Workspace& work() const { return model_.workspace(); }
  int rows() const { return rows_; }
  // A sequence is left.
  bool alive() const;
  // Whether the batch may be left within a layer.
  bool may_pause() const { return own_ != nullptr; }
  float* hidden() const { return hidden_.as<float>(); }  // (rows, hidden)
  // What must outlive a pause within a layer: (rows, heads, head_dim) twice,
  // and (rows, hidden).
  float* q() const { return own_ ? own_->q.as<float>() : work().q(); }
  float* z() const { return own_ ? own_->z.as<float>() : work().z(); }
  float* x() const { return own_ ? own_->x.as<float>() : work().normed(); }
  absl::Span<const int32_t> tokens() const { return tokens_; }
  // Of each row, plus `offset`.
  std::vector<int32_t> positions(int offset) const;
  // cos and sin of each row's position, (rows, 2, rotary / 2); nullptr if the
  // layer has no RoPE.
  const float* rope(int layer) const;
  std::vector<Entry>& entries() { return entries_; }
  // A tower's pass that has to be done before the layers; nullptr: none.
  Vision* next_vision() const;
  // The first failure of an allocation or a wait.
  const absl::Status& status() const { return status_; }
  void Check(const absl::Status& status) { status_.Update(status); }

  // Forgets cancelled sequences; between layers their rows leave, too.
  void DropCancelled(bool within_layer);

  // --- one layer's attention, in this order
  // Chooses layouts and fills the copies of K and V that need one.
  void BeginAttention(int layer);
  // Fires a hook point in every sequence, on what attention reads, and lets
  // persisting rules act on what the cache keeps.
  void Hook(HookPoint point, int layer);
  // Normalises and rotates the copies of K.
  void NormCopies(const AttentionConfig& config, const float* weight,
                  float eps);
  void RopeCopies(const AttentionConfig& config, const float* table);
  // Stores K and V; afterwards `attention_rows` says what attention reads.
  void Append(int layer);
  int attention_parts() const { return static_cast<int>(parts_.size()) - 1; }
  std::vector<AttentionRows> attention_rows(int part) const;
  void HookPattern(int layer);

 private:
  HeadRows View(const Entry& entry, const float* base, int heads,
                int head_dim) const;
  HeadRows Seen(const Entry& entry, HookPoint point,
                const AttentionConfig& config) const;
  struct Own {
    DeviceBuffer q, z, x;
  };
  absl::Status TakeOwn();
  void PlanAttention();
  absl::Status BuildRopeTables();
  void MoveRows(int from, int to, int rows);

  const Model& model_;
  std::vector<Entry> entries_;
  std::vector<int32_t> tokens_;
  int rows_ = 0;
  DeviceBuffer hidden_;
  std::unique_ptr<Own> own_;
  std::vector<int> parts_;  // of the layer's attention: where rows begin
  std::vector<DeviceBuffer> rope_tables_;  // one per model_.ropes()
  absl::Status status_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BATCH_H_
