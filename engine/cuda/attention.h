// Online softmax over tiles of kPageSize keys that start at absolute position
// 0. Tiles make segments of kSegmentKeys, whose results are merged in ascending
// order: in one block, or, for a few rows with many keys, each by a block of
// its own and the results by a second kernel. A row's own position and its
// sequence fix its chain of operations, so prefill, decode and any split of a
// prompt give it the same bits.
#ifndef QKSCOPE_ENGINE_CUDA_ATTENTION_H_
#define QKSCOPE_ENGINE_CUDA_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "engine/backend/jobs.h"
#include "engine/cuda/outputs.h"
#include "engine/cuda/page_table.h"
#include "engine/cuda/stream.h"
#include "engine/types/compute_type.h"

namespace qk::cuda {

inline constexpr int kSegmentKeys = 4 * kPageSize;
inline constexpr int kMostHeadDim = 256;

struct AttentionShape {
  int heads = 0;           // query heads
  int heads_per_tile = 1;  // neighbours that read the same keys; divides heads
  int head_dim = 0;        // at most kMostHeadDim
  float scale = 0;
  float softcap = 0;  // 0: none
  int window = 0;     // keys seen, the row's own included; 0: all
  bool causal = true;

  bool operator==(const AttentionShape&) const = default;
};

// The work of a block (for each heads_per_tile heads): some rows of a sequence,
// over all the keys that they see or one segment of them.
struct AttentionTile {
  int32_t row = 0;  // the first, in q and out
  int32_t rows = 0;
  int32_t position = 0;    // of the first row
  int32_t keys = 0;        // of the sequence
  int32_t page_begin = 0;  // the sequence's first in KvPages::pages
  int32_t fresh = -1;      // in KvPages::fresh; -1: none
  int32_t segment = -1;    // -1: all
  int32_t partial = 0;     // where a segment's results go
};

// The rows of tiles that differ in their segment alone.
struct AttentionMerge {
  int32_t row = 0;
  int32_t rows = 0;
  int32_t partial = 0;  // of the first segment
  int32_t segments = 0;
};

// A sequence's rows, as the plan sees them.
struct AttentionSequence {
  int row = 0;
  int rows = 0;
  int first_position = 0;
  int keys = 0;  // of the sequence, up to its last row in the pass
  int page_begin = 0;
  int fresh = -1;
};

// Host memory; tiles and merges go to the device before Attention.
struct AttentionPlan {
  std::vector<AttentionTile> tiles;
  std::vector<AttentionMerge> merges;
  int64_t partials = 0;  // rows of partial results

  int64_t scratch_floats(const AttentionShape& shape) const {
    return partials * (shape.heads / shape.heads_per_tile) *
           (shape.head_dim + 2);
  }
};
// Splits sequences into tiles, and tiles into segments if there would be fewer
// than `blocks` blocks and scratch_floats() stays within `most_scratch`. Any
// plan gives the same bytes.
AttentionPlan PlanAttention(const std::vector<AttentionSequence>& sequences,
                            const AttentionShape& shape, int blocks,
                            int64_t most_scratch);
// The largest heads_per_tile for `group` query heads that read the same keys.
int HeadsPerTile(int group, int head_dim);

// A plan in device memory.
struct AttentionWork {
  const AttentionTile* tiles = nullptr;
  int num_tiles = 0;
  const AttentionMerge* merges = nullptr;
  int num_merges = 0;
  int64_t partials = 0;
  float* scratch = nullptr;  // scratch_floats()
};

// out (rows, heads, head_dim) = softmax(softcap(scale q K^T), causal, window)
// V. Under bf16, the products are the tensor cores', with float32 sums; under
// float32 all is exact. Whole pages are read: slots that hold no key yet must
// have been initialised, with anything.
void Attention(const float* q, const KvPages& kv, const AttentionShape& shape,
               ComputeType type, const AttentionWork& work, Outputs out,
               Stream stream);

// A PatternJob, with its sequence as a tile of all of its rows.
struct SequencePattern {
  AttentionTile sequence;
  RowSet rows;
  HeadSet heads;
  int keys = 0;
  float* to = nullptr;
};

// Writes each job's probabilities, 0 for keys that a row does not see.
void AttentionPattern(const float* q, const KvPages& kv,
                      const AttentionShape& shape, ComputeType type,
                      const SequencePattern* jobs, int count, Stream stream);

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_ATTENTION_H_
