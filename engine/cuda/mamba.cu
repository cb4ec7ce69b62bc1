#include <cmath>

#include "engine/cuda/device.h"
#include "engine/cuda/job_list.h"
#include "engine/cuda/kernels.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 128;

__device__ float Silu(float x) { return x / (1.0f + expf(-x)); }

// log(1 + exp(x)), without overflow.
__device__ float Softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// A thread for each channel of each sequence. Its last `kernel` inputs are a
// ring in shared memory, (kernel, kThreads).
template <typename List>
__global__ void __launch_bounds__(kThreads)
    ConvKernel(QK_ARGUMENTS(List) list, float* x, int inner, int kernel,
               const float* weight, const float* bias) {
  const MambaRows& job = list.jobs[blockIdx.y];
  const int c = blockIdx.x * kThreads + threadIdx.x;
  if (c >= inner) return;
  float* ring = &Shared<float>() + threadIdx.x;
  float* past = job.state + int64_t{c} * (kernel - 1);
  const float* w = weight + int64_t{c} * kernel;
  for (int i = 0; i < kernel - 1; ++i) ring[i * kThreads] = past[i];
  for (int row = 0; row < job.rows; ++row) {
    float& value = x[(int64_t{job.row} + row) * inner + c];
    ring[(row + kernel - 1) % kernel * kThreads] = value;
    float sum = bias == nullptr ? 0.0f : bias[c];
    for (int i = 0; i < kernel; ++i) {
      sum += w[i] * ring[(row + i) % kernel * kThreads];
    }
    value = Silu(sum);
  }
  for (int i = 0; i < kernel - 1; ++i) {
    past[i] = ring[(job.rows + i) % kernel * kThreads];
  }
}

// kLanes threads for each channel of each sequence, with some states each; h
// and A lie in shared memory, (channels, state) each.
template <int kLanes, typename List>
__global__ void __launch_bounds__(kThreads)
    ScanKernel(QK_ARGUMENTS(List) list, ScanInputs in, int inner, int states,
               float* x) {
  constexpr int kChannels = kThreads / kLanes;
  const MambaRows& job = list.jobs[blockIdx.y];
  const int lane = threadIdx.x % kLanes, own = threadIdx.x / kLanes;
  const int c = blockIdx.x * kChannels + own;
  const bool inside = c < inner;
  float* h = &Shared<float>() + own * states;
  float* a = h + kChannels * states;
  float* kept = job.state + int64_t{c} * states;
  for (int s = lane; inside && s < states; s += kLanes) {
    h[s] = kept[s];
    a[s] = -expf(in.a_log[int64_t{c} * states + s]);
  }
  for (int row = 0; row < job.rows; ++row) {
    const int64_t at = (int64_t{job.row} + row) * inner + c;
    const float* b = in.b + (int64_t{job.row} + row) * states;
    const float* out = in.c + (int64_t{job.row} + row) * states;
    const float dt = inside ? Softplus(in.dt[at]) : 0.0f;
    const float input = inside ? x[at] : 0.0f;
    float y = 0;
    for (int s = lane; inside && s < states; s += kLanes) {
      h[s] = expf(a[s] * dt) * h[s] + dt * b[s] * input;
      y += h[s] * out[s];
    }
#pragma unroll
    for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
      y += __shfl_xor_sync(kAllLanes, y, lanes);
    }
    __syncwarp();  // all have read the input
    if (inside && lane == 0) {
      x[at] = (y + in.d[c] * input) * Silu(in.gate[at]);
    }
  }
  for (int s = lane; inside && s < states; s += kLanes) kept[s] = h[s];
}

template <int kLanes>
void Scan(const ScanInputs& in, int inner, int states, const MambaRows* jobs,
          int count, float* x, Stream stream) {
  constexpr int kChannels = kThreads / kLanes;
  ForJobs(jobs, count, [&](const auto& list, int n) {
    Launch(ScanKernel<kLanes, std::decay_t<decltype(list)>>,
           dim3(Blocks(inner, kChannels), n), dim3(kThreads),
           sizeof(float) * 2 * kChannels * states, stream, list, in, inner,
           states, x);
  });
}

}  // namespace

void CausalConvSilu(float* x, int inner, int kernel, const float* weight,
                    const float* bias, const MambaRows* jobs, int count,
                    Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    Launch(ConvKernel<std::decay_t<decltype(list)>>,
           dim3(Blocks(inner, kThreads), n), dim3(kThreads),
           sizeof(float) * kernel * kThreads, stream, list, x, inner, kernel,
           weight, bias);
  });
}

void SelectiveScan(const ScanInputs& in, int inner, int state_size,
                   const MambaRows* jobs, int count, float* x, Stream stream) {
  if (state_size <= 16) {
    Scan<16>(in, inner, state_size, jobs, count, x, stream);
  } else {
    Scan<32>(in, inner, state_size, jobs, count, x, stream);
  }
}

}  // namespace qk::cuda
