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

// body(sequence, channel).
template <typename Body>
void ForChannels(const RowTable& rows, int inner, ThreadPool& pool,
                 const Body& body) {
  using Sequence = CpuRowTable::Sequence;
  ForItems(
      absl::MakeConstSpan(CpuRowTable::Of(rows)), pool, kChannels,
      [&](const Sequence&) { return inner; },
      [&](const Sequence& sequence, int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
          body(sequence, static_cast<int>(c));
        }
      });
}

}  // namespace

void CausalConvSilu(float* x, const RowTable& rows, int inner, int kernel,
                    const float* weight, const float* bias, int64_t offset,
                    ThreadPool& pool) {
  ForChannels(rows, inner, pool, [&](const CpuRowTable::Sequence& s, int c) {
    // `past` holds the last kernel - 1 inputs, oldest first, then the new ones.
    float* past = s.state + offset + static_cast<int64_t>(c) * (kernel - 1);
    const float* w = weight + static_cast<int64_t>(c) * kernel;
    std::vector<float> window(past, past + kernel - 1);
    window.push_back(0.0f);
    for (int row = s.row_begin; row < s.row_begin + s.rows; ++row) {
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

void SelectiveScan(const ScanInputs& in, const RowTable& rows, int inner,
                   int state_size, int64_t offset, float* x, ThreadPool& pool) {
  ForChannels(rows, inner, pool, [&](const CpuRowTable::Sequence& s, int c) {
    float* h = s.state + offset + static_cast<int64_t>(c) * state_size;
    const float* a_log = in.a_log + static_cast<int64_t>(c) * state_size;
    for (int row = s.row_begin; row < s.row_begin + s.rows; ++row) {
      const int64_t at = static_cast<int64_t>(row) * inner + c;
      const float dt = Softplus(in.dt[at]);
      const float* b = in.b + static_cast<int64_t>(row) * state_size;
      const float* out = in.c + static_cast<int64_t>(row) * state_size;
      float y = 0.0f;
      for (int i = 0; i < state_size; ++i) {
        const float decay = std::exp(-std::exp(a_log[i]) * dt);
        h[i] = decay * h[i] + dt * b[i] * x[at];
        y += h[i] * out[i];
      }
      x[at] = (y + in.d[c] * x[at]) * Silu(in.gate[at]);
    }
  });
}

}  // namespace qk::cpu
