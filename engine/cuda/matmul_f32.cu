// The exact product of float32 tensors, without tensor cores.
#include <cmath>

#include "engine/cuda/matmul_tile.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 64;
constexpr int kDepth = 16;
constexpr int kSide = 16;  // threads are kSide x kSide
static_assert(kSliceDepth % kDepth == 0 && kSide * kSide == kThreads);

template <int kRows>
struct MatMulShared {
  float x[kDepth][kRows + 1];
  float w[kDepth][kColumns + 1];
};

// Turns rows [first, first + kRows) and columns [k, k + kDepth) of a matrix
// (rows, in); what lies outside is 0.
template <int kRows>
__device__ void LoadTile(float (*to)[kRows + 1], const float* from, int rows,
                         int in, int first, int k, int end) {
  for (int i = threadIdx.x; i < kRows * kDepth; i += kThreads) {
    const int r = i / kDepth, d = i % kDepth;
    to[d][r] = first + r < rows && k + d < end
                   ? from[int64_t{first + r} * in + k + d]
                   : 0.0f;
  }
}

// A thread has rows y + kSide i and columns x + kSide j of the tile.
template <int kRows>
__global__ void __launch_bounds__(kThreads, 2)
    MatMulF32Kernel(QK_ARGUMENTS(MatMulArguments) a, int all_columns) {
  constexpr int kM = kRows / kSide, kN = kColumns / kSide;
  auto& shared = Shared<MatMulShared<kRows>>();
  const int in = a.shape.in;
  const ColumnTile columns = FindColumns<kColumns>(a.shape, blockIdx.x);
  const int first_row = blockIdx.y * kRows;
  const RowRange range = RowsOf(a.shape);
  if (first_row >= range.rows) return;
  const float* from = static_cast<const float*>(a.x) + range.first * in;
  const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const int begin = a.partial != nullptr ? blockIdx.z * kSliceDepth : 0;
  const int end = a.partial != nullptr ? min(in, begin + kSliceDepth) : in;
  float total[kM][kN] = {}, sums[kM][kN] = {};
  for (int k = begin; k < end; k += kDepth) {
    __syncthreads();  // all have done with the tile before
    LoadTile<kRows>(shared.x, from, range.rows, in, first_row, k, end);
    LoadTile<kColumns>(shared.w, static_cast<const float*>(columns.product.w),
                       columns.product.out_features, in, columns.column, k,
                       end);
    __syncthreads();
#pragma unroll 4
    for (int d = 0; d < min(kDepth, end - k); ++d) {
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const float v = shared.x[d][y + kSide * m];
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          sums[m][n] = fmaf(v, shared.w[d][x + kSide * n], sums[m][n]);
        }
      }
    }
    if ((k + kDepth - begin) % kSliceDepth != 0 && k + kDepth < end) continue;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        total[m][n] += sums[m][n];
        sums[m][n] = 0;
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      WriteElement(a, columns, all_columns, range, first_row + y + kSide * m,
                   columns.column + x + kSide * n, total[m][n]);
    }
  }
}

template <int kRows>
void Run(const MatMulArguments& a, Stream stream) {
  const int slices = a.partial == nullptr ? 1 : Blocks(a.shape.in, kSliceDepth);
  Launch(
      MatMulF32Kernel<kRows>,
      dim3(ColumnTiles<kColumns>(a.shape), Blocks(a.shape.rows, kRows), slices),
      dim3(kThreads), sizeof(MatMulShared<kRows>), stream, a,
      a.shape.out_features());
}

}  // namespace

void MatMulF32(const MatMulArguments& a, MatMulTile tile, Stream stream) {
  if (tile == MatMulTile::k16) {
    Run<16>(a, stream);
  } else {
    Run<64>(a, stream);
  }
}

}  // namespace qk::cuda
