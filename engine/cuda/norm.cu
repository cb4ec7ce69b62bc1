#include <cmath>

#include "engine/cuda/device.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.h"

namespace qk::cuda {
namespace {

// A row of up to kWarpDim values takes a warp, a longer one a block.
constexpr int kWarpDim = 256;
constexpr int kThreads = 256;

struct NormShared {
  float warps[kThreads / 32];
};

struct NormArguments {
  const float* x;
  const float* weight;
  const float* bias;  // nullptr: RMS norm
  float eps;
  int rows, dim;
  Outputs out;
};

// The sum over a row's threads.
template <bool kWarp>
__device__ float RowSum(float x) {
  if constexpr (kWarp) {
    return WarpSum(x);
  } else {
    return BlockSum<kThreads>(x, Shared<NormShared>().warps);
  }
}

template <bool kWarp, bool kLayerNorm>
__global__ void __launch_bounds__(kThreads) NormKernel(NormArguments a) {
  constexpr int kStep = kWarp ? 32 : kThreads;
  const int64_t row =
      kWarp ? int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32
            : int64_t{blockIdx.x};
  if (row >= a.rows) return;  // a whole warp, or none
  const float* x = a.x + row * a.dim;
  const int first = threadIdx.x % kStep;
  const auto dim = static_cast<float>(a.dim);
  float mean = 0;
  if constexpr (kLayerNorm) {
    float sum = 0;
    for (int i = first; i < a.dim; i += kStep) sum += x[i];
    mean = RowSum<kWarp>(sum) / dim;
  }
  float squares = 0;
  for (int i = first; i < a.dim; i += kStep) {
    squares = fmaf(x[i] - mean, x[i] - mean, squares);
  }
  const float scale = 1.0f / sqrtf(RowSum<kWarp>(squares) / dim + a.eps);
  for (int i = first; i < a.dim; i += kStep) {
    float y = (x[i] - mean) * scale * a.weight[i];
    if constexpr (kLayerNorm) y += a.bias[i];
    Write(a.out, row * a.dim + i, y);
  }
}

template <bool kLayerNorm>
void Norm(const NormArguments& a, Stream stream) {
  if (a.dim <= kWarpDim) {
    Launch(NormKernel<true, kLayerNorm>, dim3(Blocks(a.rows, kThreads / 32)),
           dim3(kThreads), 0, stream, a);
  } else {
    Launch(NormKernel<false, kLayerNorm>, dim3(a.rows), dim3(kThreads),
           sizeof(NormShared), stream, a);
  }
}

}  // namespace

void RmsNorm(const float* x, const float* weight, float eps, int rows, int dim,
             Outputs out, Stream stream) {
  Norm<false>({x, weight, nullptr, eps, rows, dim, out}, stream);
}

void LayerNorm(const float* x, const float* weight, const float* bias,
               float eps, int rows, int dim, Outputs out, Stream stream) {
  Norm<true>({x, weight, bias, eps, rows, dim, out}, stream);
}

}  // namespace qk::cuda
