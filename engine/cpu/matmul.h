// Matrix multiplication with packed weights, on the CPU.
//
// A row's bytes must not depend on the rows beside it. PackedMatrix guarantees
// this by construction: every output element is one chain of multiply-adds over
// k in an order that is fixed, whatever the tile. OneDnnMatrix guarantees it by
// running only primitives whose row-tile sizes agreed in a probe at creation.
#ifndef QKSCOPE_ENGINE_CPU_MATMUL_H_
#define QKSCOPE_ENGINE_CPU_MATMUL_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/thread_pool.h"
#include "engine/cpu/pair_product.h"

namespace qk::cpu {

class CpuMatrix : public Matrix {
 public:
  // Backend::MatMul, for products whose weights are all of this class.
  virtual void Multiply(const float* x, absl::Span<const Product> products,
                        int rows, ThreadPool& pool) const = 0;
};

// Packs a weight for our own kernels: matmul.cc for float32, `pairs` for bf16,
// which rounds x first and sums in float32.
absl::StatusOr<std::unique_ptr<Matrix>> PackOwn(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool,
    const PairKernel& pairs);
// As manifests have it: "own-AVX512BF16", or, for FMA, its instruction set.
std::string PairKernelName(const PairKernel& kernel);
// Whether oneDNN has a kernel of this type for this processor's AVX-512 or AMX.
bool OneDnnSupports(ComputeType type);
// Whether oneDNN multiplies bf16 with AMX.
bool OneDnnHasAmx();
absl::StatusOr<std::unique_ptr<Matrix>> PackOneDnn(
    int64_t out_features, int64_t in_features, ComputeType type,
    const RowReader& rows, const float* bias, ThreadPool& pool);
std::string OneDnnVersion();

// Whether bf16 is multiplied faster by `pairs` than by oneDNN, as far as a few
// products of typical size show it.
bool BeatsOneDnn(const PairKernel& pairs, ThreadPool& pool);

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_MATMUL_H_
