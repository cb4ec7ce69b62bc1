// The head of a model: from hidden rows to logits and what is asked of them.
#ifndef QKSCOPE_ENGINE_HEAD_H_
#define QKSCOPE_ENGINE_HEAD_H_

#include "engine/batch.h"
#include "engine/model.h"

namespace qk {

// out (n, embedding_size) = what lm_head takes: project_out(final_norm(hidden
// (n, hidden))), each where the model has it. scratch: (n, hidden). `out` may
// be `hidden`.
void HeadRowsOf(const Model& model, const float* hidden, int n, float* scratch,
                float* out);

// logits (n, vocab) = softcap(rows (n, embedding_size) lm_head^T).
void Logits(const Model& model, const float* rows, int n, float* logits);

// Keeps rows where a sequence keeps them, and answers every head request.
void RunHead(Batch& batch);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_HEAD_H_
