// What kernels are written in: CUDA, or, in tests without a GPU,
// tests/cuda_on_cpu. Nothing else in this folder knows which of the two it is.
#ifndef QKSCOPE_ENGINE_CUDA_DEVICE_H_
#define QKSCOPE_ENGINE_CUDA_DEVICE_H_

#include <cstdint>

#include "engine/cuda/outputs.h"
#include "engine/cuda/stream.h"
#include "engine/types/compute_type.h"

#ifdef __CUDACC__
#include "engine/cuda/launch.h"
#include "engine/cuda/ptx.h"
#else
#include <cuda_on_cpu.h>
#endif

namespace qk::cuda {

inline constexpr uint32_t kAllLanes = 0xFFFFFFFFu;

// How many blocks of `size` cover n.
template <typename T>
__host__ __device__ constexpr T Blocks(T n, T size) {
  return (n + size - 1) / size;
}

// Calls run(T()) with the T of an array in that type: float or uint16_t.
template <typename Run>
void ForElement(ComputeType type, const Run& run) {
  if (type == ComputeType::kF32) {
    run(float());
  } else {
    run(uint16_t());
  }
}

// x[i] of a float32 or bf16 array.
__device__ inline float Load(const float* x, int64_t i) { return x[i]; }
__device__ inline float Load(const uint16_t* x, int64_t i) {
  return Bf16ToFloat(x[i]);
}
__device__ inline void Store(float* to, int64_t i, float x) { to[i] = x; }
__device__ inline void Store(uint16_t* to, int64_t i, float x) {
  to[i] = FloatToBf16(x);
}

__device__ inline void Write(const Outputs& to, int64_t i, float x) {
  if (to.f32 != nullptr) to.f32[i] = x;
  if (to.bf16 != nullptr) to.bf16[i] = FloatToBf16(x);
}

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_DEVICE_H_
