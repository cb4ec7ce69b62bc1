// The CPU backend, which every build has. Its kernels choose their instruction
// set at run time.
#ifndef QKSCOPE_ENGINE_CPU_CPU_BACKEND_H_
#define QKSCOPE_ENGINE_CPU_CPU_BACKEND_H_

#include <memory>

#include "engine/backend/backend.h"

namespace qk {

// The kernel that multiplies matrices. kHighway: the one in matmul.cc. kAuto:
// oneDNN for bf16 on a processor with AMX, else kHighway, which is as fast as
// oneDNN elsewhere and may use any row tile.
enum class MatMulKernel { kAuto, kHighway, kOneDnn };

struct CpuBackendOptions {
  int threads = 0;  // 0: the number of cores
  MatMulKernel matmul = MatMulKernel::kAuto;
};

std::unique_ptr<Backend> CreateCpuBackend(const CpuBackendOptions& options);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_CPU_CPU_BACKEND_H_
