#include <algorithm>
#include <cmath>

#include "engine/base/target_clones.h"
#include "engine/cpu/kernels.h"

namespace qk::cpu {
namespace {

// The number of columns per task. Their float64 sums stay in the L1 cache.
constexpr int kColumns = 64;
// The number of rows per task of a norm.
constexpr int kRows = 32;

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

int64_t WidthOf(const HeadRows& x) { return int64_t{x.heads} * x.head_dim; }

// Adds columns [begin, end).
void AddColumns(const MomentsJob& job, int64_t begin, int64_t end) {
  const HeadRows& x = job.x;
  const Moments& to = job.to;
  const int64_t width = WidthOf(x);
  const int n = static_cast<int>(end - begin);
  const auto block_of = [&](int i) {
    return (x.first_position + RowAt(job.rows, i)) / kPageSize;
  };
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
}

}  // namespace

void AddMoments(absl::Span<const MomentsJob> jobs, ThreadPool& pool) {
  ForItems(
      jobs, pool, kColumns,
      [](const MomentsJob& job) { return WidthOf(job.x); }, AddColumns);
}

void FinishNorms(absl::Span<const NormsJob> jobs, ThreadPool& pool) {
  constexpr int kHeads = 16;
  ForItems(
      jobs, pool, kHeads, [](const NormsJob& job) { return job.heads.count; },
      [](const NormsJob& job, int64_t begin, int64_t end) {
        float* out = job.to + begin * job.head_dim;
        for (int64_t i = begin; i < end; ++i) {
          const int64_t head = HeadAt(job.heads, static_cast<int>(i));
          const double* squares = job.squares + head * job.head_dim;
          for (int d = 0; d < job.head_dim; ++d) {
            *out++ = static_cast<float>(std::sqrt(squares[d]));
          }
        }
      });
}

void TokenNorms(absl::Span<const TokenNormsJob> jobs, ThreadPool& pool) {
  ForItems(
      jobs, pool, kRows,
      [](const TokenNormsJob& job) { return job.rows.count; },
      [](const TokenNormsJob& job, int64_t begin, int64_t end) {
        const HeadRows& x = job.x;
        float* out = job.to + begin * job.heads.count;
        for (int64_t i = begin; i < end; ++i) {
          const int64_t row = RowAt(job.rows, static_cast<int>(i));
          for (int h = 0; h < job.heads.count; ++h) {
            const float* v = HeadOf(x, row, HeadAt(job.heads, h));
            double squares = 0;
            for (int d = 0; d < x.head_dim; ++d) squares += double{v[d]} * v[d];
            *out++ = static_cast<float>(std::sqrt(squares));
          }
        }
      });
}

}  // namespace qk::cpu
