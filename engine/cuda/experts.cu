#include <cmath>

#include "engine/cuda/device.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

// Whether expert a ranks before expert b: the more probable first, then the
// lower index; NaNs last.
__device__ bool RanksBefore(float x, int a, float y, int b) {
  if (x > y || x < y) return x > y;
  const bool nan_x = x != x, nan_y = y != y;
  return nan_x != nan_y ? nan_y : a < b;
}

// A warp for each row.
__global__ void __launch_bounds__(kThreads)
    RouteKernel(const float* logits, int rows, int experts, int chosen,
                int32_t* ids, float* weights) {
  const int row = blockIdx.x * kWarps + threadIdx.x / 32;
  if (row >= rows) return;  // a whole warp
  const int lane = threadIdx.x % 32;
  const float* x = logits + int64_t{row} * experts;
  float max = -INFINITY;
  for (int e = lane; e < experts; e += 32) max = fmaxf(max, x[e]);
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, lanes));
  }
  float sum = 0;
  for (int e = lane; e < experts; e += 32) sum += expf(x[e] - max);
  sum = WarpSum(sum);
  for (int e = lane; e < experts; e += 32) {
    int place = 0;
    for (int i = 0; i < experts; ++i) place += RanksBefore(x[i], i, x[e], e);
    if (place >= chosen) continue;
    ids[int64_t{row} * chosen + place] = e;
    weights[int64_t{row} * chosen + place] = expf(x[e] - max) / sum;
  }
}

// A block for each of the rows.
__global__ void __launch_bounds__(kThreads)
    GatherKernel(const float* x, const int32_t* rows, int dim, Outputs out) {
  const float* from = x + int64_t{rows[blockIdx.x]} * dim;
  for (int i = threadIdx.x; i < dim; i += kThreads) {
    Write(out, int64_t{blockIdx.x} * dim + i, from[i]);
  }
}

__global__ void __launch_bounds__(kThreads)
    AddScaledKernel(const float* x, const int32_t* rows, const float* factors,
                    int dim, float* out) {
  const float factor = factors[blockIdx.x];
  const float* from = x + int64_t{blockIdx.x} * dim;
  float* to = out + int64_t{rows[blockIdx.x]} * dim;
  for (int i = threadIdx.x; i < dim; i += kThreads) to[i] += factor * from[i];
}

}  // namespace

void RouteExperts(const float* logits, int rows, int experts, int chosen,
                  int32_t* ids, float* weights, Stream stream) {
  Launch(RouteKernel, dim3(Blocks(rows, kWarps)), dim3(kThreads), 0, stream,
         logits, rows, experts, chosen, ids, weights);
}

void GatherRows(const float* x, const int32_t* rows, int count, int dim,
                Outputs out, Stream stream) {
  Launch(GatherKernel, dim3(count), dim3(kThreads), 0, stream, x, rows, dim,
         out);
}

void AddScaledRows(const float* x, const int32_t* rows, const float* factors,
                   int count, int dim, float* out, Stream stream) {
  Launch(AddScaledKernel, dim3(count), dim3(kThreads), 0, stream, x, rows,
         factors, dim, out);
}

}  // namespace qk::cuda
