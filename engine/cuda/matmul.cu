// The product of bf16 tensors by the tensor cores, and the plans of both types.
#include "engine/cuda/matmul.h"
#include "engine/cuda/matmul_tile.h"

namespace qk::cuda {
namespace {

constexpr int kDepth = 64;           // k of one stage of the pipeline
constexpr int kStride = kDepth + 8;  // no two rows of a matrix share banks
static_assert(kSliceDepth % kDepth == 0);

// A block's tile: its warps are kWarpRows x kWarpColumns.
template <int kRowsOf, int kColumnsOf, int kWarpRowsOf, int kWarpColumnsOf,
          int kStagesOf>
struct Tiling {
  static constexpr int kRows = kRowsOf, kColumns = kColumnsOf;
  static constexpr int kWarpColumns = kWarpColumnsOf, kStages = kStagesOf;
  static constexpr int kThreads = 32 * kWarpRowsOf * kWarpColumnsOf;
  // Matrices of mma in a warp's part.
  static constexpr int kM = kRowsOf / kWarpRowsOf / 16;
  static constexpr int kN = kColumnsOf / kWarpColumnsOf / 8;

  struct Stage {
    uint16_t x[kRows][kStride];
    uint16_t w[kColumns][kStride];
  };
  struct SharedMemory {
    Stage stages[kStages];
  };
};
using FewRows = Tiling<16, 64, 1, 4, 4>;
using SomeRows = Tiling<64, 64, 2, 2, 4>;
using ManyRows = Tiling<128, 128, 2, 4, 3>;

// Copies rows [first, first + kRows) and columns [k, k + kDepth) of a matrix
// (rows, in); what lies outside is 0.
template <int kRows, int kThreads>
__device__ void LoadTile(uint16_t (*to)[kStride], const uint16_t* from,
                         int rows, int in, int first, int k) {
  constexpr int kPieces = kDepth / 8;
  for (int i = threadIdx.x; i < kRows * kPieces; i += kThreads) {
    const int r = i / kPieces, c = i % kPieces * 8;
    const bool inside = first + r < rows;
    const uint16_t* piece = from + int64_t{first + r} * in + k + c;
    if (inside && in % 8 == 0 && k + c + 8 <= in) {
      CopyAsync16(&to[r][c], piece);
      continue;
    }
    for (int e = 0; e < 8; ++e) {
      to[r][c + e] = inside && k + c + e < in ? piece[e] : uint16_t{0};
    }
  }
}

// One warp's sums.
template <typename T>
struct Sums {
  float d[T::kM][T::kN][4];

  __device__ void Clear() {
#pragma unroll
    for (int m = 0; m < T::kM; ++m) {
#pragma unroll
      for (int n = 0; n < T::kN; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) d[m][n][i] = 0;
      }
    }
  }
  __device__ void Add(const Sums& other) {
#pragma unroll
    for (int m = 0; m < T::kM; ++m) {
#pragma unroll
      for (int n = 0; n < T::kN; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) d[m][n][i] += other.d[m][n][i];
      }
    }
  }
};

// sums += the product of the warp's rows and columns of a stage.
template <typename T>
__device__ void MultiplyStage(const typename T::Stage& stage, int row,
                              int column, Sums<T>& sums) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    uint32_t a[T::kM][4], b[T::kN / 2][4];
#pragma unroll
    for (int m = 0; m < T::kM; ++m) {
      LoadMatrix4<false>(a[m],
                         &stage.x[row + m * 16 + lane % 16][k + lane / 16 * 8]);
    }
#pragma unroll
    for (int n = 0; n < T::kN / 2; ++n) {
      LoadMatrix4<false>(b[n], &stage.w[column + n * 16 + lane / 16 * 8 +
                                        lane % 8][k + lane / 8 % 2 * 8]);
    }
#pragma unroll
    for (int m = 0; m < T::kM; ++m) {
#pragma unroll
      for (int n = 0; n < T::kN; ++n) {
        const uint32_t pair[2] = {b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]};
        Mma(sums.d[m][n], a[m], pair);
      }
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(T::kThreads)
    MatMulKernel(QK_ARGUMENTS(MatMulArguments) a, int all_columns) {
  auto& stages = Shared<typename T::SharedMemory>().stages;
  const int in = a.shape.in;
  const RowRange range = RowsOf(a.shape);
  const ColumnTile columns = FindColumns<T::kColumns>(a.shape, blockIdx.x);
  const int first_row = blockIdx.y * T::kRows;
  if (first_row >= range.rows) return;
  const uint16_t* x = static_cast<const uint16_t*>(a.x) + range.first * in;
  const int warp = threadIdx.x / 32;
  const int row = warp / T::kWarpColumns * (T::kM * 16);
  const int column = warp % T::kWarpColumns * (T::kN * 8);
  const int begin = a.partial != nullptr ? blockIdx.z * kSliceDepth : 0;
  const int end = a.partial != nullptr ? min(in, begin + kSliceDepth) : in;
  const int steps = Blocks(end - begin, kDepth);
  const auto load = [&](int step) {
    if (step < steps) {
      auto& stage = stages[step % T::kStages];
      const int k = begin + step * kDepth;
      LoadTile<T::kRows, T::kThreads>(stage.x, x, range.rows, in, first_row, k);
      LoadTile<T::kColumns, T::kThreads>(
          stage.w, static_cast<const uint16_t*>(columns.product.w),
          columns.product.out_features, in, columns.column, k);
    }
    CopyAsyncCommit();  // an empty group keeps the count
  };

  Sums<T> total, sums;
  total.Clear();
  sums.Clear();
  for (int step = 0; step < T::kStages - 1; ++step) load(step);
  for (int step = 0; step < steps; ++step) {
    CopyAsyncWait<T::kStages - 2>();
    __syncthreads();  // the stage is there, and the one before it is free
    load(step + T::kStages - 1);
    MultiplyStage<T>(stages[step % T::kStages], row, column, sums);
    if ((step + 1) % (kSliceDepth / kDepth) == 0 || step + 1 == steps) {
      total.Add(sums);
      sums.Clear();
    }
  }
  CopyAsyncWait<0>();

  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int m = 0; m < T::kM; ++m) {
#pragma unroll
    for (int n = 0; n < T::kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        WriteElement(a, columns, all_columns, range,
                     first_row + row + m * 16 + g + i / 2 * 8,
                     columns.column + column + n * 8 + 2 * t + i % 2,
                     total.d[m][n][i]);
      }
    }
  }
}

template <typename T>
void Run(const MatMulArguments& a, Stream stream) {
  const int slices = a.partial == nullptr ? 1 : Blocks(a.shape.in, kSliceDepth);
  Launch(MatMulKernel<T>,
         dim3(ColumnTiles<T::kColumns>(a.shape), Blocks(a.shape.rows, T::kRows),
              slices),
         dim3(T::kThreads), sizeof(typename T::SharedMemory), stream, a,
         a.shape.out_features());
}

constexpr int kAddThreads = 256;

// A thread for each element of a row.
__global__ void __launch_bounds__(kAddThreads)
    AddSlicesKernel(QK_ARGUMENTS(MatMulArguments) a, int all_columns) {
  const int column = blockIdx.x * kAddThreads + threadIdx.x;
  const int row = blockIdx.y;
  const RowRange range = RowsOf(a.shape);
  if (column >= all_columns || row >= range.rows) return;
  const int slices = Blocks(a.shape.in, kSliceDepth);
  float total = 0;
  for (int slice = 0; slice < slices; ++slice) {
    const int64_t at = int64_t{slice} * a.shape.rows + row;
    total += a.partial[at * all_columns + column];
  }
  const ColumnTile own = FindColumns<1>(a.shape, column);
  WriteProduct(own.product, range.first + row, own.column, total);
}

constexpr int kNarrow = 64;  // columns of the two smaller tiles

}  // namespace

int MatMulShape::out_features() const {
  int all = 0;
  for (int p = 0; p < products; ++p) all += list[p].out_features;
  return all;
}

// A product is spread until there are two blocks for each multiprocessor; one
// of large tiles is not, since its partial sums would be large, too.
MatMulPlan PlanMatMul(const MatMulShape& shape, int multiprocessors) {
  MatMulPlan plan;
  const int rows = shape.rows, out = shape.out_features();
  if (rows <= 16) {
    plan.tile = MatMulTile::k16;
  } else if (int64_t{Blocks(rows, 128)} * Blocks(out, 128) >= multiprocessors) {
    plan.tile = MatMulTile::k128;
  }
  const int tile_rows = static_cast<int>(plan.tile);
  plan.spread = plan.tile != MatMulTile::k128 && shape.in > kSliceDepth &&
                int64_t{Blocks(rows, tile_rows)} * Blocks(out, kNarrow) <
                    2 * multiprocessors;
  return plan;
}

int64_t MatMulScratch(const MatMulShape& shape, const MatMulPlan& plan) {
  if (!plan.spread) return 0;
  return int64_t{Blocks(shape.in, kSliceDepth)} * shape.rows *
         shape.out_features();
}

void AddSlices(const MatMulArguments& a, Stream stream) {
  const int columns = a.shape.out_features();
  Launch(AddSlicesKernel, dim3(Blocks(columns, kAddThreads), a.shape.rows),
         dim3(kAddThreads), 0, stream, a, columns);
}

void MatMul(const void* x, ComputeType type, const MatMulShape& shape,
            const MatMulPlan& plan, float* scratch, Stream stream) {
  const MatMulArguments a = {x, shape, plan.spread ? scratch : nullptr};
  if (type == ComputeType::kF32) {
    MatMulF32(a, plan.tile, stream);
  } else if (plan.tile == MatMulTile::k16) {
    Run<FewRows>(a, stream);
  } else if (plan.tile == MatMulTile::k64) {
    Run<SomeRows>(a, stream);
  } else {
    Run<ManyRows>(a, stream);
  }
  if (plan.spread) AddSlices(a, stream);
}

}  // namespace qk::cuda
