// Attention by the tensor cores: what a block and a thread have, and values
// that are not finite. A block's warps have 16 rows each.
#ifndef QKSCOPE_ENGINE_CUDA_ATTENTION_BF16_H_
#define QKSCOPE_ENGINE_CUDA_ATTENTION_BF16_H_

#include "engine/cuda/attention_tile.h"

namespace qk::cuda {

inline constexpr int kKeys = kPageSize;  // of a tile

// kDim: head_dim, rounded up to what a kernel is compiled for.
template <int kDim>
struct AttentionShared {
  static constexpr int kRows = AttentionRows(kDim);
  static constexpr int kThreads = 2 * kRows;
  // Of a multiprocessor; for more, the compiler would spill registers.
  static constexpr int kBlocks = kDim <= 128 ? 2 : 1;
  // 8 values more, so that no two rows of a matrix share banks.
  uint16_t q[kRows][kDim + 8];
  uint16_t k[kDim][kKeys + 8];
  uint16_t v[kKeys][kDim + 8];
  // Each thread's sums over the segments before this one.
  float total[kDim / 2][kThreads];
  // Bits of its values that have met infinities; both are a NaN's.
  uint32_t plus[kDim / 64][kThreads], minus[kDim / 64][kThreads];
};

// What a thread has of its warp's rows g and g + 8: of scores and sums, columns
// 2 t and 2 t + 1 of every 8.
template <int kDim>
struct RowPair {
  int g, t;
  int position[2];
  RowSum state[2], total[2];
  float o[kDim / 8][4];

  __device__ void Clear() {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[n][i] = 0;
    }
    state[0] = state[1] = RowSum();
  }
};

__device__ inline bool IsFinite(uint16_t bf16) {
  return (bf16 & 0x7F80u) != 0x7F80u;
}
// Of two bf16 values.
__device__ inline bool AreFinite(uint32_t pair) {
  return (((pair & 0x7F807F80u) + 0x00800080u) & 0x80008000u) == 0;
}

// Sets values that are not finite to 0, each thread those that it has loaded,
// and returns whether there were any. 0 times a NaN is one: such values must
// not meet the weights 0 of rows that do not see them.
template <int kDim>
__device__ bool DropNonFinite(int dim, AttentionShared<kDim>& shared) {
  constexpr int kThreads = AttentionShared<kDim>::kThreads;
  bool dropped = false;
  for (int i = threadIdx.x; i < kKeys * (kDim / 8); i += kThreads) {
    const int d = i % (kDim / 8) * 8;
    if (d >= dim) continue;
    uint16_t* piece = &shared.v[i / (kDim / 8)][d];
    uint32_t x[4];
    LoadShared16(x, piece);
    if (AreFinite(x[0]) && AreFinite(x[1]) && AreFinite(x[2]) &&
        AreFinite(x[3])) {
      continue;
    }
    dropped = true;
    for (int e = 0; e < 8; ++e) {
      if (!IsFinite(piece[e])) piece[e] = 0;
    }
  }
  return dropped;
}

// Notes the values that DropNonFinite took out, for the rows that see them.
template <int kDim>
__device__ void NoteNonFinite(const uint16_t* v, const AttentionShape& shape,
                              int keys, int base, const RowPair<kDim>& rows,
                              AttentionShared<kDim>& shared) {
  const int dim = shape.head_dim;
  const KeyRange seen[2] = {SeenBy(rows.position[0], keys, shape),
                            SeenBy(rows.position[1], keys, shape)};
#pragma unroll 1
  for (int i = 0; i < kDim / 4; ++i) {
    const int d = i / 2 * 8 + 2 * rows.t + i % 2;
#pragma unroll 1
    for (int key = base; d < dim && key < min(base + kKeys, keys); ++key) {
      const uint16_t x = v[(key - base) * dim + d];
      if (IsFinite(x)) continue;
      const float value = Bf16ToFloat(x);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (key < seen[h].begin || key >= seen[h].end) continue;
        const int bit = i / 2 * 4 + 2 * h + i % 2;  // as in RowPair::o
        const uint32_t mark = 1u << (bit % 32);
        if (!(value < 0)) shared.plus[bit / 32][threadIdx.x] |= mark;
        if (!(value > 0)) shared.minus[bit / 32][threadIdx.x] |= mark;
      }
    }
  }
}

// What NoteNonFinite noted for value `bit` of RowPair::o.
template <int kDim>
__device__ float NonFinite(const AttentionShared<kDim>& shared, int bit) {
  const bool plus = (shared.plus[bit / 32][threadIdx.x] >> bit % 32 & 1) != 0;
  const bool minus = (shared.minus[bit / 32][threadIdx.x] >> bit % 32 & 1) != 0;
  return (plus ? INFINITY : 0.0f) - (minus ? INFINITY : 0.0f);
}

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_ATTENTION_BF16_H_
