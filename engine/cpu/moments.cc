#include <algorithm>
#include <cmath>

#include "engine/cpu/kernels.h"

// One body, compiled for several instruction sets and chosen at run time.
#if defined(__x86_64__)
#define QK_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define QK_CLONES
#endif

namespace qk::cpu {
namespace {

// Columns that one task sums; their float64 sums stay in the L1 cache.
constexpr int kColumns = 64;

// One row's columns into the block's sums. No multiply-add is contracted, so
// every clone gives the same bits.
QK_CLONES void AddSquares(const float* x, int n, double* squares) {
  for (int i = 0; i < n; ++i) {
    const double v = x[i];
    squares[i] += v * v;
  }
}

QK_CLONES void AddValues(const float* x, int n, double* sums) {
  for (int i = 0; i < n; ++i) sums[i] += x[i];
}

}  // namespace

void AddMoments(const HeadRows& x, absl::Span<const int> rows,
                const Moments& moments, ThreadPool& pool) {
  const int64_t width = static_cast<int64_t>(x.heads) * x.head_dim;
  pool.For((width + kColumns - 1) / kColumns, [&](int64_t chunk, int) {
    const int64_t begin = chunk * kColumns;
    const int n = static_cast<int>(std::min<int64_t>(kColumns, width - begin));
    double squares[kColumns];
    double sums[kColumns];
    for (size_t i = 0; i < rows.size();) {
      const int block = (x.first_position + rows[i]) / kPageSize;
      std::fill_n(squares, n, 0.0);
      std::fill_n(sums, n, 0.0);
      for (;
           i < rows.size() && (x.first_position + rows[i]) / kPageSize == block;
           ++i) {
        const float* row = x.data + rows[i] * width + begin;
        AddSquares(row, n, squares);
        if (moments.sums != nullptr) AddValues(row, n, sums);
      }
      for (int c = 0; c < n; ++c) {
        moments.squares[begin + c] += squares[c];
        if (moments.sums != nullptr) moments.sums[begin + c] += sums[c];
      }
    }
  });
}

void FinishNorms(const double* squares, absl::Span<const int> heads,
                 int head_dim, float* out) {
  for (int head : heads) {
    for (int d = 0; d < head_dim; ++d) {
      *out++ = static_cast<float>(
          std::sqrt(squares[static_cast<int64_t>(head) * head_dim + d]));
    }
  }
}

void TokenNorms(const HeadRows& x, absl::Span<const int> rows,
                absl::Span<const int> heads, float* out) {
  for (int row : rows) {
    for (int head : heads) {
      const float* v =
          x.data + (static_cast<int64_t>(row) * x.heads + head) * x.head_dim;
      double squares = 0;
      for (int d = 0; d < x.head_dim; ++d) squares += double{v[d]} * v[d];
      *out++ = static_cast<float>(std::sqrt(squares));
    }
  }
}

}  // namespace qk::cpu
