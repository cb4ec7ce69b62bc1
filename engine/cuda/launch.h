// Launches kernels; nothing else does.
#ifndef QKSCOPE_ENGINE_CUDA_LAUNCH_H_
#define QKSCOPE_ENGINE_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstddef>

#include "engine/cuda/launch_error.h"
#include "engine/cuda/stream.h"

// A kernel's parameter that is too large to copy.
#define QK_ARGUMENTS(...) const __grid_constant__ __VA_ARGS__

namespace qk::cuda {

// Runs a kernel; `shared` is the bytes of shared memory of each block. A grid
// without blocks is nothing to do. A failure is kept for TakeLaunchError().
template <typename... P, typename... A>
void Launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
            Stream stream, const A&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  constexpr size_t kWithoutAsking = 48 << 10;
  if (shared > kWithoutAsking) {
    NoteLaunch(cudaFuncSetAttribute(kernel,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared)));
  }
  kernel<<<grid, block, shared, stream>>>(static_cast<P>(args)...);
  NoteLaunch(cudaGetLastError());
}

// The block's shared memory, laid out as T.
template <typename T>
__device__ T& Shared() {
  extern __shared__ __align__(16) unsigned char qk_shared[];
  return *reinterpret_cast<T*>(qk_shared);
}

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_LAUNCH_H_
