// Matrix multiplication with packed weights, on the CPU.
//
// A row's bytes must not depend on the rows beside it. PackedMatrix has this by
// construction: every output element is one chain of multiply-adds over k in
// ascending order, whatever the tile. OneDnnMatrix has it because it only runs
// primitives of row-tile sizes that a probe at creation found to agree.
#ifndef QKSCOPE_ENGINE_CPU_MATMUL_H_
#define QKSCOPE_ENGINE_CPU_MATMUL_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/cpu/thread_pool.h"

namespace qk::cpu {

class CpuMatrix : public Matrix {
 public:
  // x (rows, in), out (rows, out_features).
  virtual void Multiply(const float* x, int rows, float* out,
                        ThreadPool& pool) const = 0;
};

// Our own kernel; bf16 weights are widened in registers, bf16 compute rounds x
// first and sums in float32.
absl::StatusOr<std::unique_ptr<Matrix>> PackHighway(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool);
// Name of the instruction set the kernel uses, e.g. "AVX2".
std::string HighwayTarget();

// Whether oneDNN has a kernel of this type for this processor's AVX-512 or AMX.
bool OneDnnSupports(ComputeType type);
// Whether it is the faster one: bf16 with AMX.
bool OneDnnIsFaster(ComputeType type);
absl::StatusOr<std::unique_ptr<Matrix>> PackOneDnn(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool);
std::string OneDnnVersion();

// What a block of rows is multiplied with: panels [first, last) of a matrix of
// n columns, steps [k, k + depth) of each panel's k_total.
struct PanelRange {
  size_t first, last;
  size_t n;
  size_t k, depth, k_total;
};

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_MATMUL_H_
