// The CPU backend, which every build has. Its kernels choose their instruction
// set at run time.
#ifndef QKSCOPE_ENGINE_CPU_CPU_BACKEND_H_
#define QKSCOPE_ENGINE_CPU_CPU_BACKEND_H_

#include <memory>

#include "engine/backend/backend.h"

namespace qk {

namespace cpu {
struct PairKernel;
}  // namespace cpu

// What multiplies matrices. kOwn: our kernels. kAuto: those, or oneDNN for bf16
// on a processor with AMX where it is not slower by a fifth (BeatsOneDnn).
enum class MatMulKernel { kAuto, kOwn, kOneDnn };

struct CpuBackendOptions {
  int threads = 0;  // 0: the number of cores
  MatMulKernel matmul = MatMulKernel::kAuto;
  // Our kernel for bf16, in attention and in matrices that are ours; null: the
  // fastest on this machine (pair_product.h).
  const cpu::PairKernel* pairs = nullptr;
};

std::unique_ptr<Backend> CreateCpuBackend(const CpuBackendOptions& options);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_CPU_CPU_BACKEND_H_
