// Attention in float32, without tensor cores. A block has kRows rows at a time,
// with kLanes threads for each.
#include "engine/cuda/attention_tile.h"

namespace qk::cuda {
namespace {

constexpr int kKeys = kPageSize;  // of a tile
constexpr int kRows = 16;
constexpr int kLanes = 8;
constexpr int kThreads = kRows * kLanes;

template <int kDim>
struct AttentionShared {
  float q[kRows][kDim + 1];
  float weights[kRows][kKeys + 1];
  float k[kDim][kKeys];
  float v[kKeys][kDim];
};

// One thread's part of a row: keys and dims lane, lane + kLanes ...
template <int kDim>
struct RowPart {
  int lane, row;  // of the block's kRows
  int position;
  RowSum state, total;
  float o[kDim / kLanes],
      sums[kDim / kLanes];  // of this segment; of those before

  __device__ void Clear() {
#pragma unroll
    for (int i = 0; i < kDim / kLanes; ++i) o[i] = 0;
    state = RowSum();
  }
};

template <int kDim>
__device__ void LoadTile(const KvTile<float>& from, int dim,
                         AttentionShared<kDim>& shared) {
  for (int i = threadIdx.x; i < dim * kKeys; i += kThreads) {
    shared.k[i / kKeys][i % kKeys] = from.k[i];
    shared.v[i / dim][i % dim] = from.v[i];
  }
}

// Sets the row's weights of a tile, and rescales its sums so far.
template <int kDim>
__device__ void Weigh(const AttentionShape& shape, const KeyRange& seen,
                      int base, AttentionShared<kDim>& shared,
                      RowPart<kDim>& row) {
  float s[kKeys / kLanes] = {};
  for (int d = 0; d < shape.head_dim; ++d) {
    const float q = shared.q[row.row][d];
#pragma unroll
    for (int j = 0; j < kKeys / kLanes; ++j) {
      s[j] = fmaf(q, shared.k[d][row.lane + kLanes * j], s[j]);
    }
  }
  float top = row.state.max;
#pragma unroll
  for (int j = 0; j < kKeys / kLanes; ++j) {
    const int key = base + row.lane + kLanes * j;
    s[j] *= shape.scale;
    if (shape.softcap > 0) s[j] = shape.softcap * tanhf(s[j] / shape.softcap);
    if (key < seen.begin || key >= seen.end) s[j] = -INFINITY;
    top = fmaxf(top, s[j]);
  }
#pragma unroll
  for (int lanes = 1; lanes < kLanes; lanes *= 2) {
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, lanes));
  }
  const float factor =
      row.state.max == -INFINITY ? 0.0f : expf(row.state.max - top);
  row.state.max = top;
  float total = 0;
#pragma unroll
  for (int j = 0; j < kKeys / kLanes; ++j) {
    const float weight = s[j] == -INFINITY ? 0.0f : expf(s[j] - top);
    total += weight;
    shared.weights[row.row][row.lane + kLanes * j] = weight;
  }
#pragma unroll
  for (int lanes = 1; lanes < kLanes; lanes *= 2) {
    total += __shfl_xor_sync(kAllLanes, total, lanes);
  }
  row.state.sum = row.state.sum * factor + total;
#pragma unroll
  for (int i = 0; i < kDim / kLanes; ++i) row.o[i] *= factor;
}

// o += weights V, over the keys that the row sees: a NaN in another one cannot
// spread.
template <int kDim>
__device__ void AddValues(const KeyRange& seen, int base,
                          const AttentionShared<kDim>& shared,
                          RowPart<kDim>& row) {
  const int end = min(kKeys, seen.end - base);
  for (int key = max(0, seen.begin - base); key < end; ++key) {
    const float weight = shared.weights[row.row][key];
#pragma unroll
    for (int i = 0; i < kDim / kLanes; ++i) {
      row.o[i] = fmaf(weight, shared.v[key][row.lane + kLanes * i], row.o[i]);
    }
  }
}

template <int kDim>
__device__ void EndSegment(RowPart<kDim>& row) {
  const MergeFactors f = MergeSums(row.total, row.state);
#pragma unroll
  for (int i = 0; i < kDim / kLanes; ++i) {
    row.sums[i] = row.sums[i] * f.old + row.o[i] * f.added;
  }
  row.Clear();
}

template <int kDim>
__device__ void WriteRow(const BlockRows& block, const AttentionShape& shape,
                         const AttentionWork& work, const Outputs& out, int r,
                         const RowPart<kDim>& row) {
  if (r >= block.all) return;
  const bool whole = block.tile.segment < 0;
  float* partial = nullptr;
  if (!whole) {
    partial = PartialAt(work, shape, blockIdx.y, block.tile.partial + r);
    if (row.lane == 0) {
      partial[shape.head_dim] = row.state.max;
      partial[shape.head_dim + 1] = row.state.sum;
    }
  }
#pragma unroll
  for (int i = 0; i < kDim / kLanes; ++i) {
    const int d = row.lane + kLanes * i;
    if (d >= shape.head_dim) continue;
    if (whole) {
      Write(out, block.Offset(r, shape) + d,
            Normalised(row.sums[i], row.total.sum));
    } else {
      partial[d] = row.o[i];
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads)
    AttentionF32Kernel(const float* q, KvPages kv, AttentionShape shape,
                       AttentionWork work, Outputs out) {
  auto& shared = Shared<AttentionShared<kDim>>();
  const BlockRows block(work.tiles[blockIdx.x], shape, blockIdx.y);
  const KeyRange range = RangeOf(block.tile, shape);
  const int last = (range.end - 1) / kKeys;
  // Dims beyond head_dim are 0.
  for (int i = threadIdx.x; i < (kDim - shape.head_dim) * kKeys;
       i += kThreads) {
    shared.v[i % kKeys][shape.head_dim + i / kKeys] = 0;
  }
#pragma unroll 1
  for (int begin = 0; begin < block.all; begin += kRows) {
    RowPart<kDim> row;
    row.lane = threadIdx.x % kLanes;
    row.row = threadIdx.x / kLanes;
    row.position = block.Position(begin + row.row);
    row.total = RowSum();
    row.Clear();
#pragma unroll
    for (int i = 0; i < kDim / kLanes; ++i) row.sums[i] = 0;
    __syncthreads();  // all have done with the rows before
    for (int i = threadIdx.x; i < kRows * shape.head_dim; i += kThreads) {
      const int r = i / shape.head_dim, d = i % shape.head_dim;
      shared.q[r][d] =
          begin + r < block.all ? q[block.Offset(begin + r, shape) + d] : 0.0f;
    }
    const KeyRange seen = SeenBy(row.position, block.tile.keys, shape);
#pragma unroll 1
    for (int tile = range.begin / kKeys; tile <= last; ++tile) {
      const int base = tile * kKeys;
      __syncthreads();  // all have done with the tile before
      LoadTile<kDim>(
          KvTileAt<float>(kv, block.tile, shape, tile, block.first_head),
          shape.head_dim, shared);
      __syncthreads();
      Weigh<kDim>(shape, seen, base, shared, row);
      __syncwarp();  // a row's threads are of one warp
      AddValues<kDim>(seen, base, shared, row);
      if (block.tile.segment < 0 &&
          (tile == last || (base + kKeys) % kSegmentKeys == 0)) {
        EndSegment<kDim>(row);
      }
    }
    WriteRow<kDim>(block, shape, work, out, begin + row.row, row);
  }
}

}  // namespace

void AttentionF32(const float* q, const KvPages& kv,
                  const AttentionShape& shape, const AttentionWork& work,
                  Outputs out, Stream stream) {
  ForHeadDim(shape.head_dim, [&](auto dim) {
    constexpr int kDim = dim;
    Launch(AttentionF32Kernel<kDim>,
           dim3(work.num_tiles, shape.heads / shape.heads_per_tile),
           dim3(kThreads), sizeof(AttentionShared<kDim>), stream, q, kv, shape,
           work, out);
  });
}

}  // namespace qk::cuda
