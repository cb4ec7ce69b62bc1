#include <algorithm>
#include <cmath>

#include "engine/base/target_clones.h"
#include "engine/cpu/kernels.h"

namespace qk::cpu {
namespace {

// The number of columns per task. Their float64 sums stay in the L1 cache.
constexpr int kColumns = 64;

// Adds one row's columns to the block's sums. No multiply-add is contracted, so
// every clone gives the same bits.
QK_TARGET_CLONES("avx512f", "avx2", "default")
void AddSquares(const float* x, int n, double* squares) {
  for (int i = 0; i < n; ++i) {
    const double v = x[i];
    squares[i] += v * v;
  }
}

QK_TARGET_CLONES("avx512f", "avx2", "default")
void AddValues(const float* x, int n, double* sums) {
  for (int i = 0; i < n; ++i) sums[i] += x[i];
}

void Add(const MomentsJob& job, ThreadPool& pool) {
  const HeadRows& x = job.x;
  const Moments& to = job.to;
  const int64_t width = static_cast<int64_t>(x.heads) * x.head_dim;
  const auto block_of = [&](int i) {
    return (x.first_position + RowAt(job.rows, i)) / kPageSize;
  };
  pool.For((width + kColumns - 1) / kColumns, [&](int64_t chunk, int) {
    const int64_t begin = chunk * kColumns;
    const int n = static_cast<int>(std::min<int64_t>(kColumns, width - begin));
    if (job.from_zero) {
      std::fill_n(to.squares + begin, n, 0.0);
      if (to.sums != nullptr) std::fill_n(to.sums + begin, n, 0.0);
    }
    double squares[kColumns];
    double sums[kColumns];
    for (int i = 0; i < job.rows.count;) {
      const int64_t block = block_of(i);
      std::fill_n(squares, n, 0.0);
      std::fill_n(sums, n, 0.0);
      for (; i < job.rows.count && block_of(i) == block; ++i) {
        const float* row = x.data + RowAt(job.rows, i) * width + begin;
        AddSquares(row, n, squares);
        if (to.sums != nullptr) AddValues(row, n, sums);
      }
      for (int c = 0; c < n; ++c) {
        to.squares[begin + c] += squares[c];
        if (to.sums != nullptr) to.sums[begin + c] += sums[c];
      }
    }
  });
}

}  // namespace

void AddMoments(absl::Span<const MomentsJob> jobs, ThreadPool& pool) {
  for (const MomentsJob& job : jobs) Add(job, pool);
}

void FinishNorms(absl::Span<const NormsJob> jobs) {
  for (const NormsJob& job : jobs) {
    float* out = job.to;
    for (int i = 0; i < job.heads.count; ++i) {
      const double* squares =
          job.squares +
          static_cast<int64_t>(HeadAt(job.heads, i)) * job.head_dim;
      for (int d = 0; d < job.head_dim; ++d) {
        *out++ = static_cast<float>(std::sqrt(squares[d]));
      }
    }
  }
}

void TokenNorms(absl::Span<const TokenNormsJob> jobs) {
  for (const TokenNormsJob& job : jobs) {
    const HeadRows& x = job.x;
    float* out = job.to;
    for (int i = 0; i < job.rows.count; ++i) {
      for (int h = 0; h < job.heads.count; ++h) {
        const float* v = HeadOf(x, RowAt(job.rows, i), HeadAt(job.heads, h));
        double squares = 0;
        for (int d = 0; d < x.head_dim; ++d) squares += double{v[d]} * v[d];
        *out++ = static_cast<float>(std::sqrt(squares));
      }
    }
  }
}

}  // namespace qk::cpu
