// Matrix multiplication with packed weights, on the CPU.
//
// A row's bytes must not depend on the rows beside it. PackedMatrix guarantees
// this by construction: every output element is one chain of multiply-adds over
// k in ascending order, whatever the tile. OneDnnMatrix guarantees it by
// running only primitives whose row-tile sizes agreed in a probe at creation.
#ifndef QKSCOPE_ENGINE_CPU_MATMUL_H_
#define QKSCOPE_ENGINE_CPU_MATMUL_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/thread_pool.h"

namespace qk::cpu {

class CpuMatrix : public Matrix {
 public:
  // Backend::MatMul, for products whose weights are all of this class.
  virtual void Multiply(const float* x, absl::Span<const Product> products,
                        int rows, ThreadPool& pool) const = 0;
};

// Packs a weight for the kernel in matmul.cc, which is written with Highway. It
// widens bf16 weights in registers; bf16 compute rounds x first and sums in
// float32.
absl::StatusOr<std::unique_ptr<Matrix>> PackHighway(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool);
// The name of the instruction set that this kernel uses, e.g. "AVX2".
std::string HighwayTarget();

// Whether oneDNN has a kernel of this type for this processor's AVX-512 or AMX.
bool OneDnnSupports(ComputeType type);
// Whether oneDNN's kernel is the faster one: for bf16 with AMX.
bool OneDnnIsFaster(ComputeType type);
absl::StatusOr<std::unique_ptr<Matrix>> PackOneDnn(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool);
std::string OneDnnVersion();

// The part of a matrix that a block of rows is multiplied by: panels
// [first, last) of a matrix with n columns, and [k, k + depth) of each panel's
// k_total.
struct PanelRange {
  size_t first, last;
  size_t n;
  size_t k, depth, k_total;
};

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_MATMUL_H_
