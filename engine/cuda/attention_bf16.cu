#include "engine/cuda/attention_bf16.h"
#include "engine/cuda/attention_tile.h"

namespace qk::cuda {
namespace {

template <int kDim>
__device__ void LoadQ(const float* q, const BlockRows& rows,
                      const AttentionShape& shape,
                      AttentionShared<kDim>& shared) {
  constexpr int kRows = AttentionShared<kDim>::kRows;
  const int dim = shape.head_dim;
  for (int i = threadIdx.x; i < kRows * kDim; i += 2 * kRows) {
    const int r = i / kDim, d = i % kDim;
    shared.q[r][d] = r < rows.all && d < dim
                         ? FloatToBf16(q[rows.Offset(r, shape) + d])
                         : uint16_t{0};
  }
  // What pads K and V stays 0.
  for (int i = threadIdx.x; i < (kDim - dim) * kKeys; i += 2 * kRows) {
    shared.k[dim + i / kKeys][i % kKeys] = 0;
    shared.v[i % kKeys][dim + i / kKeys] = 0;
  }
}

template <int kDim>
__device__ void LoadK(const uint16_t* k, int dim,
                      AttentionShared<kDim>& shared) {
  constexpr int kThreads = AttentionShared<kDim>::kThreads;
  for (int i = threadIdx.x; i < dim * (kKeys / 8); i += kThreads) {
    const int d = i / (kKeys / 8), j = i % (kKeys / 8) * 8;
    CopyAsync16(&shared.k[d][j], k + d * kKeys + j);
  }
}

template <int kDim>
__device__ void LoadV(const uint16_t* v, int dim,
                      AttentionShared<kDim>& shared) {
  constexpr int kThreads = AttentionShared<kDim>::kThreads;
  const bool aligned = dim % 8 == 0;
  for (int i = threadIdx.x; i < kKeys * (kDim / 8); i += kThreads) {
    const int j = i / (kDim / 8), d = i % (kDim / 8) * 8;
    if (aligned && d < dim) CopyAsync16(&shared.v[j][d], v + j * dim + d);
    for (int e = d; !aligned && e < min(d + 8, dim); ++e) {
      shared.v[j][e] = v[j * dim + e];
    }
  }
}

// s = q K^T of the warp's rows.
template <int kDim>
__device__ void Scores(const AttentionShared<kDim>& shared,
                       float (&s)[kKeys / 8][4]) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[j][i] = 0;
  }
#pragma unroll 4
  for (int d = 0; d < kDim; d += 16) {
    uint32_t a[4];
    LoadMatrix4<false>(a, &shared.q[row + lane % 16][d + lane / 16 * 8]);
#pragma unroll
    for (int j = 0; j < kKeys / 8; j += 2) {
      uint32_t b[4];
      LoadMatrix4<true>(b, &shared.k[d + lane % 16][j * 8 + lane / 16 * 8]);
      const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
      Mma(s[j], a, b0);
      Mma(s[j + 1], a, b1);
    }
  }
}

__device__ float Exp(float x) { return exp2f(x * 1.4426950408889634f); }
// Without a branch; near 0 its error is that of 1, far below bf16's.
__device__ float Tanh(float x) {
  return 1.0f - __fdividef(2.0f, Exp(2.0f * x) + 1.0f);
}

// Turns row h's scores into weights, and rescales its sums so far. What the row
// does not see has the weight 0; a NaN that it sees stays one.
template <int kDim>
__device__ void Weigh(const AttentionShape& shape, int keys, int base, int h,
                      RowPair<kDim>& rows, float (&s)[kKeys / 8][4]) {
  const KeyRange seen = SeenBy(rows.position[h], keys, shape);
  RowSum& state = rows.state[h];
  float top = state.max;
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& x = s[j][2 * h + e];
      const int key = base + j * 8 + 2 * rows.t + e;
      x *= shape.scale;
      if (shape.softcap > 0) x = shape.softcap * Tanh(x / shape.softcap);
      if (key < seen.begin || key >= seen.end) x = -INFINITY;
      top = fmaxf(top, x);
    }
  }
#pragma unroll
  for (int lanes = 1; lanes < 4; lanes *= 2) {
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, lanes));
  }
  const float factor = state.max == -INFINITY ? 0.0f : Exp(state.max - top);
  state.max = top;
  float total = 0;
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& x = s[j][2 * h + e];
      x = x == -INFINITY ? 0.0f : Exp(x - top);
      total += x;
    }
  }
#pragma unroll
  for (int lanes = 1; lanes < 4; lanes *= 2) {
    total += __shfl_xor_sync(kAllLanes, total, lanes);
  }
  state.sum = state.sum * factor + total;
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    rows.o[n][2 * h] *= factor;
    rows.o[n][2 * h + 1] *= factor;
  }
}

// o += weights V.
template <int kDim>
__device__ void AddValues(const AttentionShared<kDim>& shared,
                          const float (&s)[kKeys / 8][4], RowPair<kDim>& rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < kKeys / 8; j += 2) {
    const uint32_t a[4] = {FloatsToBf16(s[j][0], s[j][1]),
                           FloatsToBf16(s[j][2], s[j][3]),
                           FloatsToBf16(s[j + 1][0], s[j + 1][1]),
                           FloatsToBf16(s[j + 1][2], s[j + 1][3])};
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t b[4];
      LoadMatrix4<true>(b, &shared.v[j * 8 + lane % 16][n * 8 + lane / 16 * 8]);
      const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
      Mma(rows.o[n], a, b0);
      Mma(rows.o[n + 1], a, b1);
    }
  }
}

// Adds the segment's sums to those of the segments before.
template <int kDim>
__device__ void EndSegment(AttentionShared<kDim>& shared, RowPair<kDim>& rows) {
  MergeFactors f[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) f[h] = MergeSums(rows.total[h], rows.state[h]);
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& total = shared.total[n * 4 + i][threadIdx.x];
      total = total * f[i / 2].old + rows.o[n][i] * f[i / 2].added;
    }
  }
  rows.Clear();
}

// Writes the thread's values: results, or a segment's partial ones.
template <int kDim>
__device__ void WriteRows(const BlockRows& block, const AttentionShape& shape,
                          const AttentionWork& work, const Outputs& out,
                          const AttentionShared<kDim>& shared,
                          const RowPair<kDim>& rows) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = threadIdx.x / 32 * 16 + rows.g + 8 * h;
    if (r >= block.all) continue;
    const int64_t offset = block.Offset(r, shape);
    float* partial = nullptr;
    if (block.tile.segment >= 0) {
      partial = PartialAt(work, shape, blockIdx.y, block.tile.partial + r);
      if (rows.t == 0) {  // four threads have the row
        partial[shape.head_dim] = rows.state[h].max;
        partial[shape.head_dim + 1] = rows.state[h].sum;
      }
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int d = n * 8 + 2 * rows.t + e, i = 2 * h + e;
        if (d >= shape.head_dim) continue;
        const float other = NonFinite<kDim>(shared, n * 4 + i);
        if (partial != nullptr) {
          partial[d] = rows.o[n][i] + other;
        } else {
          Write(out, offset + d,
                Normalised(shared.total[n * 4 + i][threadIdx.x] + other,
                           rows.total[h].sum));
        }
      }
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(AttentionShared<kDim>::kThreads,
                                  AttentionShared<kDim>::kBlocks)
    AttentionKernel(const float* q, KvPages kv, AttentionShape shape,
                    AttentionWork work, Outputs out) {
  auto& shared = Shared<AttentionShared<kDim>>();
  const BlockRows block(work.tiles[blockIdx.x], shape, blockIdx.y);
  const int keys = block.tile.keys;
  RowPair<kDim> rows;
  rows.g = threadIdx.x % 32 / 4;
  rows.t = threadIdx.x % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    rows.position[h] = block.Position(threadIdx.x / 32 * 16 + rows.g + 8 * h);
  }
  rows.Clear();
#pragma unroll
  for (int i = 0; i < kDim / 2; ++i) shared.total[i][threadIdx.x] = 0;
#pragma unroll
  for (int i = 0; i < kDim / 64; ++i) {
    shared.plus[i][threadIdx.x] = shared.minus[i][threadIdx.x] = 0;
  }

  const KeyRange range = RangeOf(block.tile, shape);
  const int last = (range.end - 1) / kKeys;
  const auto tile_at = [&](int tile) {
    return KvTileAt<uint16_t>(kv, block.tile, shape, tile, block.first_head);
  };
  KvTile<uint16_t> now = tile_at(range.begin / kKeys);
  LoadQ<kDim>(q, block, shape, shared);
  LoadK<kDim>(now.k, shape.head_dim, shared);
  CopyAsyncCommit();
  LoadV<kDim>(now.v, shape.head_dim, shared);
  CopyAsyncCommit();
  for (int tile = range.begin / kKeys; tile <= last; ++tile) {
    const int base = tile * kKeys;
    const KvTile<uint16_t> next = tile < last ? tile_at(tile + 1) : now;
    float s[kKeys / 8][4];
    CopyAsyncWait<1>();
    __syncthreads();  // K is there
    Scores<kDim>(shared, s);
    __syncthreads();  // K is free
    if (tile < last) LoadK<kDim>(next.k, shape.head_dim, shared);
    CopyAsyncCommit();
#pragma unroll
    for (int h = 0; h < 2; ++h) Weigh<kDim>(shape, keys, base, h, rows, s);
    CopyAsyncWait<1>();
    const bool dropped =
        __syncthreads_or(DropNonFinite<kDim>(shape.head_dim, shared)) != 0;
    AddValues<kDim>(shared, s, rows);
    if (dropped) {
      NoteNonFinite<kDim>(now.v, shape, keys, base, rows, shared);
    }
    if (block.tile.segment < 0 &&
        (tile == last || (base + kKeys) % kSegmentKeys == 0)) {
      EndSegment<kDim>(shared, rows);
    }
    __syncthreads();  // V is free
    if (tile < last) LoadV<kDim>(next.v, shape.head_dim, shared);
    CopyAsyncCommit();
    now = next;
  }
  CopyAsyncWait<0>();
  WriteRows<kDim>(block, shape, work, out, shared, rows);
}

}  // namespace

void AttentionBf16(const float* q, const KvPages& kv,
                   const AttentionShape& shape, const AttentionWork& work,
                   Outputs out, Stream stream) {
  ForHeadDim(shape.head_dim, [&](auto dim) {
    constexpr int kDim = dim;
    Launch(AttentionKernel<kDim>,
           dim3(work.num_tiles, shape.heads / shape.heads_per_tile),
           dim3(AttentionShared<kDim>::kThreads), sizeof(AttentionShared<kDim>),
           stream, q, kv, shape, work, out);
  });
}

}  // namespace qk::cuda
