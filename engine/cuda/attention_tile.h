// What the attention kernels and their plan share.
#ifndef QKSCOPE_ENGINE_CUDA_ATTENTION_TILE_H_
#define QKSCOPE_ENGINE_CUDA_ATTENTION_TILE_H_

#include <cmath>
#include <type_traits>

#include "engine/cuda/attention.h"
#include "engine/cuda/device.h"

namespace qk::cuda {

// Rows of a block, heads times positions. With long heads they are fewer, so
// that their sums fit into registers.
__host__ __device__ constexpr int AttentionRows(int head_dim) {
  return head_dim <= 128 ? 64 : 32;
}

// Calls run(std::integral_constant<int, kDim>()) with the smallest kDim that
// kernels are compiled for and that takes heads of `head_dim` <= kMostHeadDim.
template <typename Run>
void ForHeadDim(int head_dim, Run run) {
  if (head_dim <= 64) {
    run(std::integral_constant<int, 64>());
  } else if (head_dim <= 128) {
    run(std::integral_constant<int, 128>());
  } else {
    run(std::integral_constant<int, kMostHeadDim>());
  }
}

struct KeyRange {
  int begin, end;
};

// The keys that any row of a tile sees, within its segment.
__host__ __device__ inline KeyRange RangeOf(const AttentionTile& tile,
                                            const AttentionShape& shape) {
  KeyRange range = {0, shape.causal ? tile.position + tile.rows : tile.keys};
  if (shape.window > 0 && tile.position >= shape.window) {
    range.begin = tile.position - shape.window + 1;
  }
  if (tile.segment >= 0) {
    const int begin = tile.segment * kSegmentKeys;
    if (range.begin < begin) range.begin = begin;
    if (range.end > begin + kSegmentKeys) range.end = begin + kSegmentKeys;
  }
  return range;
}

// The keys that a row sees. A row of no sequence has position -1 and sees none.
__host__ __device__ inline KeyRange SeenBy(int position, int keys,
                                           const AttentionShape& shape) {
  if (position < 0) return {0, 0};
  const int begin = shape.window > 0 && position >= shape.window
                        ? position - shape.window + 1
                        : 0;
  return {begin, shape.causal ? position + 1 : keys};
}

// A block's rows: row r is head r / tile.rows of the block's heads and position
// r % tile.rows of the tile.
struct BlockRows {
  AttentionTile tile;
  int first_head;
  int all;  // heads_per_tile * tile.rows

  __device__ BlockRows(const AttentionTile& t, const AttentionShape& shape,
                       int block)
      : tile(t),
        first_head(block * shape.heads_per_tile),
        all(shape.heads_per_tile * t.rows) {}
  // In q and out.
  __device__ int64_t Offset(int r, const AttentionShape& shape) const {
    return (int64_t{tile.row + r % tile.rows} * shape.heads + first_head +
            r / tile.rows) *
           shape.head_dim;
  }
  __device__ int Position(int r) const {
    return r < all ? tile.position + r % tile.rows : -1;
  }
};

template <typename T>
struct KvTile {
  const T* k;  // (head_dim, kPageSize)
  const T* v;  // (kPageSize, head_dim)
};

// Keys and values of a query head at a sequence's page.
template <typename T>
__device__ KvTile<T> KvTileAt(const KvPages& kv, const AttentionTile& tile,
                              const AttentionShape& shape, int page, int head) {
  const char* base = nullptr;
  KvPart layout = kv.layout;
  if (tile.fresh >= 0) {
    const FreshPages& fresh = kv.fresh[tile.fresh];
    const int i = page - fresh.first_page;
    if (0 <= i && i < fresh.pages) {
      base = static_cast<const char*>(fresh.base) + i * fresh.stride;
      layout = fresh.layout;
    }
  }
  if (base == nullptr) {
    base = static_cast<const char*>(kv.pages[tile.page_begin + page]);
  }
  const int kv_head = head * layout.heads / shape.heads;
  const int64_t offset = int64_t{kv_head} * shape.head_dim * kPageSize;
  return {reinterpret_cast<const T*>(base + layout.k_offset) + offset,
          reinterpret_cast<const T*>(base + layout.v_offset) + offset};
}

// A row's largest score so far and the sum of its weights.
struct RowSum {
  float max = -INFINITY;
  float sum = 0;
};

// Factors of what a row has so far and of what a segment adds.
struct MergeFactors {
  float old, added;
};

// Adds a segment's sum to a row's. A segment whose keys the row does not see
// changes nothing, to the bit.
__device__ inline MergeFactors MergeSums(RowSum& row, const RowSum& segment) {
  const float max = fmaxf(row.max, segment.max);
  const MergeFactors f = {
      row.max == -INFINITY ? 0.0f : expf(row.max - max),
      segment.max == -INFINITY ? 0.0f : expf(segment.max - max)};
  row.max = max;
  row.sum = row.sum * f.old + segment.sum * f.added;
  return f;
}

// A result from a row's weighted sum. Adding 0 makes -0 and 0 one.
__device__ inline float Normalised(float value, float sum) {
  return value * (1.0f / sum) + 0.0f;
}

// Row r's place among the partial results: (head_dim) values, max, sum.
__device__ inline float* PartialAt(const AttentionWork& work,
                                   const AttentionShape& shape, int block,
                                   int64_t partial) {
  return work.scratch +
         (block * work.partials + partial) * (shape.head_dim + 2);
}

// The kernels of each type, and the one that merges segments.
void AttentionBf16(const float* q, const KvPages& kv,
                   const AttentionShape& shape, const AttentionWork& work,
                   Outputs out, Stream stream);
void AttentionF32(const float* q, const KvPages& kv,
                  const AttentionShape& shape, const AttentionWork& work,
                  Outputs out, Stream stream);

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_ATTENTION_TILE_H_
