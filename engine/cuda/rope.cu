#include <cmath>

#include "engine/cuda/device.h"
#include "engine/cuda/kernels.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 256;

// A thread for each pair of each row. Angles are float32 products, as in
// transformers; their cosines are exact to float32.
__global__ void __launch_bounds__(kThreads)
    RopeTableKernel(RopeTable t, int64_t n, float* table) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  const int64_t row = i / t.half;
  const int pair = static_cast<int>(i % t.half);
  int section = 0;
  while (section + 1 < t.num_sections && pair >= t.section_end[section]) {
    ++section;
  }
  const int32_t place = t.positions[row * kRopeCoordinates + section];
  const float frequency =
      t.frequencies[int64_t{t.frequencies_of_row[row]} * t.half + pair];
  const float angle = static_cast<float>(place) * frequency;
  double sine, cosine;
  sincos(static_cast<double>(angle), &sine, &cosine);
  float* to = table + int64_t{t.places[row]} * 2 * t.half + pair;
  to[0] = static_cast<float>(cosine) * t.factor;
  to[t.half] = static_cast<float>(sine) * t.factor;
}

// A thread for each pair of each head.
__global__ void __launch_bounds__(kThreads)
    RopeKernel(float* x, int64_t n, int heads, int head_dim, int half,
               const float* table) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  const int pair = static_cast<int>(i % half);
  const int64_t head = i / half;  // of all rows
  const float* cosine = table + head / heads * 2 * half;
  const float c = cosine[pair], s = cosine[half + pair];
  float* a = x + head * head_dim + pair;
  const float left = a[0], right = a[half];
  a[0] = left * c - right * s;
  a[half] = right * c + left * s;
}

}  // namespace

void MakeRopeTable(const RopeTable& table, int rows, float* out,
                   Stream stream) {
  const int64_t n = int64_t{rows} * table.half;
  Launch(RopeTableKernel,
         dim3(static_cast<unsigned>(Blocks<int64_t>(n, kThreads))),
         dim3(kThreads), 0, stream, table, n, out);
}

void Rope(float* x, int64_t rows, int heads, int head_dim, int rotary_dims,
          const float* table, Stream stream) {
  const int half = rotary_dims / 2;
  const int64_t n = rows * heads * half;
  Launch(RopeKernel, dim3(static_cast<unsigned>(Blocks<int64_t>(n, kThreads))),
         dim3(kThreads), 0, stream, x, n, heads, head_dim, half, table);
}

}  // namespace qk::cuda
