#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/cpu/kernels.h"

namespace qk::cpu {
namespace {

// The number of channels per task. Their state stays in the first-level cache.
constexpr int kChannels = 16;

float Silu(float x) { return x / (1.0f + std::exp(-x)); }

// log(1 + exp(x)), without overflow.
float Softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

template <typename Body>
void ForChannels(int inner, ThreadPool& pool, const Body& body) {
  pool.For((inner + kChannels - 1) / kChannels, [&](int64_t chunk, int) {
    const int begin = static_cast<int>(chunk) * kChannels;
    for (int c = begin; c < std::min(inner, begin + kChannels); ++c) body(c);
  });
}

}  // namespace

void CausalConvSilu(float* x, int rows, int inner, int kernel,
                    const float* weight, const float* bias, float* state,
                    ThreadPool& pool) {
  ForChannels(inner, pool, [&](int c) {
    // `past` holds the last kernel - 1 inputs, oldest first, then the new ones.
    float* past = state + static_cast<int64_t>(c) * (kernel - 1);
    const float* w = weight + static_cast<int64_t>(c) * kernel;
    std::vector<float> window(past, past + kernel - 1);
    window.push_back(0.0f);
    for (int row = 0; row < rows; ++row) {
      float& value = x[static_cast<int64_t>(row) * inner + c];
      window.back() = value;
      float sum = bias == nullptr ? 0.0f : bias[c];
      for (int i = 0; i < kernel; ++i) sum += w[i] * window[i];
      value = Silu(sum);
      std::rotate(window.begin(), window.begin() + 1, window.end());
    }
    std::copy_n(window.begin(), kernel - 1, past);
  });
}

void SelectiveScan(const ScanInputs& in, int rows, int inner, int state_size,
                   float* state, float* x, ThreadPool& pool) {
  ForChannels(inner, pool, [&](int c) {
    float* h = state + static_cast<int64_t>(c) * state_size;
    const float* a_log = in.a_log + static_cast<int64_t>(c) * state_size;
    for (int row = 0; row < rows; ++row) {
      const int64_t at = static_cast<int64_t>(row) * inner + c;
      const float dt = Softplus(in.dt[at]);
      const float* b = in.b + static_cast<int64_t>(row) * state_size;
      const float* out = in.c + static_cast<int64_t>(row) * state_size;
      float y = 0.0f;
      for (int s = 0; s < state_size; ++s) {
        const float decay = std::exp(-std::exp(a_log[s]) * dt);
        h[s] = decay * h[s] + dt * b[s] * x[at];
        y += h[s] * out[s];
      }
      x[at] = (y + in.d[c] * x[at]) * Silu(in.gate[at]);
    }
  });
}

}  // namespace qk::cpu
