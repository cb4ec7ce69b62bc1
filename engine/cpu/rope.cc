#include <algorithm>

#include "engine/cpu/kernels.h"

namespace qk::cpu {

void MakeRopeTable(const RopeConfig& rope, absl::Span<const RopeRows> rows,
                   float* table, ThreadPool& pool) {
  constexpr int kRows = 32;
  ForItems(
      rows, pool, kRows, [](const RopeRows& r) { return r.positions.size(); },
      [&](const RopeRows& r, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          FillRopeRow(rope, r.frequencies, r.positions[i],
                      table + (r.row_begin + i) * rope.rotary_dims);
        }
      });
}

void Rope(float* x, int64_t rows, int heads, int head_dim, int rotary_dims,
          const float* table, ThreadPool& pool) {
  const int half = rotary_dims / 2;
  constexpr int64_t kChunk = 32;
  pool.For((rows + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min(rows, (chunk + 1) * kChunk);
    for (int64_t row = chunk * kChunk; row < end; ++row) {
      const float* cos = table + row * rotary_dims;
      const float* sin = cos + half;
      for (int h = 0; h < heads; ++h) {
        float* a = x + (row * heads + h) * head_dim;
        float* b = a + half;
        for (int i = 0; i < half; ++i) {
          const float left = a[i] * cos[i] - b[i] * sin[i];
          b[i] = b[i] * cos[i] + a[i] * sin[i];
          a[i] = left;
        }
      }
    }
  });
}

}  // namespace qk::cpu
