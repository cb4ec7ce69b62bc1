// The head of a model: from hidden rows to logits and what is asked of them.
#ifndef QKSCOPE_ENGINE_HEAD_H_
#define QKSCOPE_ENGINE_HEAD_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/model/model.h"
#include "engine/model/workspace.h"

namespace qk {

// out (n, embedding_size) = what lm_head takes: project_out(final_norm(hidden
// (n, hidden))), each where the model has it. scratch: (n, hidden). `out` may
// be `hidden`.
void HeadRowsOf(const Model& model, const float* hidden, int n, float* scratch,
                float* out);

// work.logits(tile) = softcap(rows (targets.size(), embedding_size) lm_head^T),
// and work.reduced(tile) = what they reduce to.
void LogitsTile(const Model& model, const float* rows,
                absl::Span<const int32_t> targets, const Workspace& work,
                int tile);

// The end of a pass: keeps rows where a sequence keeps them, and answers every
// head request, a tile of logits at a time.
class Head {
 public:
  // The layers have run.
  explicit Head(Batch& batch);
  bool done() const { return next_ >= asked_.size(); }
  // Sequences that have left the batch are passed by.
  void RunTile();

 private:
  // A row of a sequence whose logits are asked for: the request's number.
  struct Asked {
    Sequence* sequence;
    size_t request;
  };
  struct Row {
    Asked asked;
    int row;  // in the batch
  };
  void Compute(absl::Span<const Row> rows);

  Batch& batch_;
  std::vector<Asked> asked_;
  size_t next_ = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_HEAD_H_
