// A ragged batch: the rows of several sequences, prefill and decode mixed, one
// after another in one (rows, hidden) tensor.
#ifndef QKSCOPE_ENGINE_BATCH_H_
#define QKSCOPE_ENGINE_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/backend.h"
#include "engine/model.h"
#include "engine/pass_step.h"
#include "engine/sequence.h"
#include "engine/workspace.h"

namespace qk {

class Batch {
 public:
  struct Entry {
    Sequence* sequence = nullptr;
    PassStep step;
    int row_begin = 0;
    KvLayout layout = KvLayout::kShared;  // of the layer in work
    std::vector<KvPage> pages;            // that attention reads there
  };

  Batch(const Model& model, absl::Span<Sequence* const> sequences);

  Backend& backend() const { return *model_.backend(); }
  const Workspace& work() const { return model_.workspace(); }
  int rows() const { return rows_; }
  float* hidden() const { return hidden_.as<float>(); }  // (rows, hidden)
  absl::Span<const int32_t> tokens() const { return tokens_; }
  absl::Span<const int32_t> positions() const { return positions_; }
  std::vector<Entry>& entries() { return entries_; }
  // Of the allocation at birth.
  const absl::Status& status() const { return status_; }

  // Takes rows of cancelled sequences out. Between layers.
  void DropCancelled();

  // --- one layer's attention, in this order
  // Chooses layouts and fills the copies of K and V that need one.
  void BeginAttention(int layer);
  // Fires a hook point in every sequence, on what attention reads, and lets
  // persisting rules act on what the cache keeps.
  void Hook(HookPoint point, int layer);
  // Rotates the copies.
  void RopeCopies(const AttentionConfig& config, const float* table);
  // Stores K and V; afterwards `attention_rows` says what attention reads.
  void Append(int layer);
  std::vector<AttentionRows> attention_rows() const;
  void HookPattern(int layer);

  // Final norm (rows after it where they are kept) and requested logits.
  void Head();

 private:
  HeadRows View(const Entry& entry, const float* base, int heads,
                int head_dim) const;
  HeadRows Seen(const Entry& entry, HookPoint point,
                const AttentionConfig& config) const;
  void RunHeadTile(absl::Span<const std::pair<Entry*, int>> requests);

  const Model& model_;
  std::vector<Entry> entries_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  int rows_ = 0;
  DeviceBuffer hidden_;
  absl::Status status_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BATCH_H_
