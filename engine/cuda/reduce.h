// Sums and maxima over a warp or a block. Their order depends on the number of
// threads alone, and all threads get the same bits.
#ifndef QKSCOPE_ENGINE_CUDA_REDUCE_H_
#define QKSCOPE_ENGINE_CUDA_REDUCE_H_

#include "engine/cuda/device.h"

namespace qk::cuda {

template <typename T>
__device__ T WarpSum(T x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, lanes);
  }
  return x;
}

// combine(a, b) must not depend on its arguments' order. scratch
// (kThreads / 32) is shared memory that may be used again at once.
template <int kThreads, typename T, typename Combine>
__device__ T BlockReduce(T x, T* scratch, const Combine& combine) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    x = combine(x, __shfl_xor_sync(kAllLanes, x, lanes));
  }
  __syncthreads();  // all have read the result before
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[0];
#pragma unroll
  for (int w = 1; w < kThreads / 32; ++w) x = combine(x, scratch[w]);
  return x;
}

template <int kThreads, typename T>
__device__ T BlockSum(T x, T* scratch) {
  return BlockReduce<kThreads>(x, scratch, [](T a, T b) { return a + b; });
}

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_REDUCE_H_
