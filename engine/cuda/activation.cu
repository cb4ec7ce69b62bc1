#include <cmath>

#include "engine/cuda/device.h"
#include "engine/cuda/kernels.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;

// out (n)[i] = f(i).
template <typename F>
__global__ void __launch_bounds__(kThreads)
    ElementKernel(F f, int64_t n, Outputs out) {
  const int64_t first =
      int64_t{blockIdx.x} * (kThreads * kPerThread) + threadIdx.x;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const int64_t i = first + j * kThreads;
    if (i < n) Write(out, i, f(i));
  }
}

template <typename F>
void ForElements(const F& f, int64_t n, Outputs out, Stream stream) {
  const int64_t blocks = Blocks<int64_t>(n, kThreads * kPerThread);
  Launch(ElementKernel<F>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
         0, stream, f, n, out);
}

// A NaN stays one in each of these.
template <Activation kActivation>
__device__ float Activated(float x) {
  if constexpr (kActivation == Activation::kSilu) {
    return x / (1.0f + expf(-x));
  } else if constexpr (kActivation == Activation::kQuickGelu) {
    return x / (1.0f + expf(-1.702f * x));
  } else if constexpr (kActivation == Activation::kGelu) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    const float inner = 0.79788456080286536f * (x + 0.044715f * (x * x * x));
    return 0.5f * x * (1.0f + tanhf(inner));
  } else {
    return x < 0.0f ? 0.0f : x;
  }
}

template <Activation kActivation>
struct Activating {
  const float* x;
  const float* times;  // may be null
  __device__ float operator()(int64_t i) const {
    const float y = Activated<kActivation>(x[i]);
    return times == nullptr ? y : y * times[i];
  }
};

struct Capping {
  const float* x;
  float cap;
  __device__ float operator()(int64_t i) const {
    return cap * tanhf(x[i] / cap);
  }
};

struct Adding {
  const float* x;
  const float* y;
  __device__ float operator()(int64_t i) const { return x[i] + y[i]; }
};

struct Biasing {
  const float* x;
  const float* bias;
  int dim;
  __device__ float operator()(int64_t i) const { return x[i] + bias[i % dim]; }
};

struct Scaling {
  const float* x;
  float factor;
  __device__ float operator()(int64_t i) const { return x[i] * factor; }
};

struct Copying {
  const float* x;
  __device__ float operator()(int64_t i) const { return x[i]; }
};

}  // namespace

void Activate(const float* x, const float* times, int64_t n,
              Activation activation, Outputs out, Stream stream) {
  const auto run = [&](auto f) { ForElements(f, n, out, stream); };
  switch (activation) {
    case Activation::kSilu:
      return run(Activating<Activation::kSilu>{x, times});
    case Activation::kGelu:
      return run(Activating<Activation::kGelu>{x, times});
    case Activation::kGeluTanh:
      return run(Activating<Activation::kGeluTanh>{x, times});
    case Activation::kRelu:
      return run(Activating<Activation::kRelu>{x, times});
    case Activation::kQuickGelu:
      return run(Activating<Activation::kQuickGelu>{x, times});
  }
}

void Softcap(float* x, int64_t n, float cap, Stream stream) {
  ForElements(Capping{x, cap}, n, {x}, stream);
}

void Add(float* x, const float* y, int64_t n, Stream stream) {
  ForElements(Adding{x, y}, n, {x}, stream);
}

void AddBias(float* x, const float* bias, int rows, int dim, Stream stream) {
  ForElements(Biasing{x, bias, dim}, int64_t{rows} * dim, {x}, stream);
}

void Scale(float* x, int64_t n, float factor, Stream stream) {
  ForElements(Scaling{x, factor}, n, {x}, stream);
}

void RoundToBf16(const float* x, int64_t n, uint16_t* out, Stream stream) {
  ForElements(Copying{x}, n, {nullptr, out}, stream);
}

}  // namespace qk::cuda
