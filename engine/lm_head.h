// The language-model head: turns hidden rows into logits and answers the
// sequences' requests for them.
#ifndef QKSCOPE_ENGINE_LM_HEAD_H_
#define QKSCOPE_ENGINE_LM_HEAD_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"

namespace qk {

// out (n, embedding_size) = project_out(final_norm(hidden (n, hidden))), the
// rows that lm_head takes; a model may lack either function. scratch:
// (n, hidden). `out` may be `hidden`.
void LmHeadInput(const Model& model, const float* hidden, int n, float* scratch,
                 float* out);

// work.logits(tile) = softcap(rows (targets.size(), embedding_size) lm_head^T),
// and work.reduced(tile) = each row reduced to a LogitsRow.
void LogitsTile(const Model& model, const float* rows,
                absl::Span<const int32_t> targets, const Workspace& work,
                int tile);

// The end of a pass: stores rows for the sequences that keep them, and answers
// every LogitsRequest, one tile of logits at a time.
class LmHead {
 public:
  // The batch's layers must have run.
  explicit LmHead(Batch& batch);
  bool done() const { return next_ >= requests_.size(); }
  // Computes the next tile, without the sequences that have left the batch.
  void RunTile();
  // Stores the results in the sequences that are left. All must have arrived.
  void TakeResults();

 private:
  // One of a sequence's requests, by its index in `logits_requests`.
  struct RowRequest {
    Sequence* sequence;
    size_t index;
  };
  // A row of a tile, with what the sequence asked for: it may have gone when
  // the results arrive.
  struct Row {
    RowRequest from;
    LogitsRequest request;
    int row;         // in the batch's hidden()
    Arrival logits;  // (vocab) if wanted
  };
  struct Tile {
    std::vector<Row> rows;
    Arrival reduced;  // LogitsRow (rows)
    Arrival top;      // TopLogit, those of all rows one after another
  };
  // nullptr: the sequence has left the batch.
  const Batch::Entry* EntryOf(const Sequence* sequence) const;
  int64_t MostTopLogits() const;
  void Compute(Tile& tile);
  void Fetch(Tile& tile);
  void Take(const Tile& tile) const;

  Batch& batch_;
  std::vector<RowRequest> requests_;
  size_t next_ = 0;
  DeviceBuffer top_;  // the largest tile's TopLogits
  std::deque<Tile> tiles_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_LM_HEAD_H_
