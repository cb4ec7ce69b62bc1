// CUDA's kernel language for an ordinary C++ compiler, so that the same .cu
// files run in tests without a GPU. engine/cuda/device.h includes it in place
// of CUDA's own headers.
#ifndef QKSCOPE_TESTS_CUDA_ON_CPU_CUDA_ON_CPU_H_
#define QKSCOPE_TESTS_CUDA_ON_CPU_CUDA_ON_CPU_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine/cuda/launch_error.h"
#include "engine/cuda/stream.h"
#include "tests/cuda_on_cpu/block.h"
#include "tests/cuda_on_cpu/tensor_core.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// A kernel's parameter that is too large to copy.
#define QK_ARGUMENTS(...) const __VA_ARGS__&

template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}

inline float __fdividef(float x, float y) { return x / y; }

inline void __syncthreads(
    qk::cuda_on_cpu::Where where = qk::cuda_on_cpu::Where::Here()) {
  qk::cuda_on_cpu::Block::current().Sync(where);
}

inline int __syncthreads_or(
    int value, qk::cuda_on_cpu::Where where = qk::cuda_on_cpu::Where::Here()) {
  return qk::cuda_on_cpu::Block::current().SyncOr(value != 0, where);
}
inline void __syncwarp(
    uint32_t mask = 0xFFFFFFFFu,
    qk::cuda_on_cpu::Where where = qk::cuda_on_cpu::Where::Here()) {
  qk::cuda_on_cpu::Block::current().SyncWarp(mask, where);
}

// As on hardware, a shuffle orders no memory.
template <typename T>
T __shfl_sync(uint32_t mask, T value, int source,
              qk::cuda_on_cpu::Where where = qk::cuda_on_cpu::Where::Here()) {
  using qk::cuda_on_cpu::Warp;
  struct In {
    T value;
    int source;
  };
  const auto combine = [](Warp& warp, uint8_t(*out)[16]) {
    for (int i = 0; i < 32; ++i) {
      if (!warp.Has(i)) continue;
      In in, from;
      std::memcpy(&in, warp.in[i], sizeof(In));
      // A lane that takes no part has no value: a NaN shows it.
      std::memset(static_cast<void*>(&from), 0xFF, sizeof(In));
      if (in.source >= 0 && in.source < 32 && warp.Has(in.source)) {
        std::memcpy(&from, warp.in[in.source], sizeof(In));
      }
      std::memcpy(out[i], &from.value, sizeof(T));
    }
  };
  return qk::cuda_on_cpu::Block::current().Meet<In, T>(mask, 1, {value, source},
                                                       where, combine);
}

template <typename T>
T __shfl_xor_sync(
    uint32_t mask, T value, int lane_mask,
    qk::cuda_on_cpu::Where where = qk::cuda_on_cpu::Where::Here()) {
  const int lane = qk::cuda_on_cpu::Block::current().lane();
  return __shfl_sync(mask, value, lane ^ lane_mask, where);
}

inline uint32_t __ballot_sync(
    uint32_t mask, int value,
    qk::cuda_on_cpu::Where where = qk::cuda_on_cpu::Where::Here()) {
  const auto combine = [](qk::cuda_on_cpu::Warp& warp, uint8_t(*out)[16]) {
    uint32_t lanes = 0;
    for (uint32_t i = 0; i < 32; ++i) {
      if (warp.Has(i) && warp.in[i][0] != 0) lanes |= 1u << i;
    }
    for (int i = 0; i < 32; ++i) std::memcpy(out[i], &lanes, sizeof lanes);
  };
  return qk::cuda_on_cpu::Block::current().Meet<uint8_t, uint32_t>(
      mask, 5, value != 0, where, combine);
}

inline int __popc(uint32_t x) { return std::popcount(x); }

namespace qk::cuda {

// Runs a kernel; `shared` is the bytes of shared memory of each block.
template <typename... P, typename... A>
void Launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, Stream,
            const A&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (cuda_on_cpu::options().before_launch != nullptr) {
    const int error = cuda_on_cpu::options().before_launch();
    NoteLaunch(error);
    if (error != 0) return;
  }
  cuda_on_cpu::RunGrid(grid, block, shared,
                       [&] { kernel(static_cast<P>(args)...); });
}

// The block's shared memory, laid out as T.
template <typename T>
T& Shared() {
  return *static_cast<T*>(cuda_on_cpu::Block::current().shared());
}

}  // namespace qk::cuda

#endif  // QKSCOPE_TESTS_CUDA_ON_CPU_CUDA_ON_CPU_H_
