// The functions that start kernels: one or a few launches each, on a stream.
// All pointers are to device memory unless a comment says otherwise; tensors
// are float32, row-major and dense, as in engine/backend/backend.h, which says
// what each op does. A function reads its spans before it returns. A launch
// that fails is in TakeLaunchError().
#ifndef QKSCOPE_ENGINE_CUDA_KERNELS_H_
#define QKSCOPE_ENGINE_CUDA_KERNELS_H_

#include <cstdint>

#include "engine/cuda/outputs.h"
#include "engine/cuda/stream.h"

namespace qk::cuda {

// --- norm.cu

// out (rows, dim) may be x.
void RmsNorm(const float* x, const float* weight, float eps, int rows, int dim,
             Outputs out, Stream stream);
void LayerNorm(const float* x, const float* weight, const float* bias,
               float eps, int rows, int dim, Outputs out, Stream stream);

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_KERNELS_H_
