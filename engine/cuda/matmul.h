// out = x W^T, with bytes that do not depend on the rows beside a row. k is cut
// into slices of kSliceDepth; a slice is one chain of multiply-adds over
// ascending k, and slices are added in ascending order. With many rows, a block
// does all slices of its tile. With few, each slice has blocks of its own, so
// that the whole GPU reads weights, and a second kernel adds. The chain is the
// same either way, and in tiles of every size.
#ifndef QKSCOPE_ENGINE_CUDA_MATMUL_H_
#define QKSCOPE_ENGINE_CUDA_MATMUL_H_

#include <cstdint>

#include "engine/cuda/stream.h"
#include "engine/types/compute_type.h"

namespace qk::cuda {

inline constexpr int kSliceDepth = 512;

// One of several weights that multiply the same x.
struct Product {
  const void* w = nullptr;      // (out_features, in), in the compute type
  const float* bias = nullptr;  // (out_features), or null
  float* out = nullptr;         // (rows, out_features)
  int out_features = 0;
  bool add = false;  // out += the product
};
inline constexpr int kMostProducts = 4;

struct MatMulShape {
  int rows = 0, in = 0;
  int products = 0;  // how many of the list: 1 to kMostProducts
  Product list[kMostProducts];
  // If set, two numbers in device memory: the product is over rows
  // [range[0], range[1]) of x and of each out, at most `rows` of them.
  const int32_t* range = nullptr;

  int out_features() const;  // of all products
};

enum class MatMulTile { k16 = 16, k64 = 64, k128 = 128 };  // rows of a block

struct MatMulPlan {
  MatMulTile tile = MatMulTile::k64;
  bool spread = false;  // slices have blocks of their own
};
// The faster plan; any plan gives the same bytes.
MatMulPlan PlanMatMul(const MatMulShape& shape, int multiprocessors);
// How many floats of scratch memory a plan needs.
int64_t MatMulScratch(const MatMulShape& shape, const MatMulPlan& plan);

// x (rows, in): bf16 under ComputeType::kBF16, with float32 sums by the tensor
// cores; float32 under kF32, exact. 16-byte aligned, like each w.
void MatMul(const void* x, ComputeType type, const MatMulShape& shape,
            const MatMulPlan& plan, float* scratch, Stream stream);

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_MATMUL_H_
