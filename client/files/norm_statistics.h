// Computes the statistics of (heads, head_dim) matrices of norms for saved
// tensors. Live Layer events carry the server's statistics.
#ifndef QKSCOPE_CLIENT_FILES_NORM_STATISTICS_H_
#define QKSCOPE_CLIENT_FILES_NORM_STATISTICS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/cpp/analysis_result.h"

namespace qk::client {

struct NormStatistics {
  int massive_count = 0;  // entries > lambda x mean of their head
  double ratio = 0;       // max over heads of max / mean
  int64_t non_finite = 0;
};

// `norms`: (heads, head_dim), row-major. A head whose mean is 0 has no massive
// entries. Entries that are not finite count in `non_finite` only; if there are
// no others, the ratio is NaN.
NormStatistics ComputeNormStatistics(const std::vector<float>& norms,
                                     int head_dim, double lambda);

// How two tensors of one shape differ.
struct Difference {
  int64_t count = 0;   // elements whose bytes differ
  int64_t first = -1;  // index of the first such element
  float first_a = 0, first_b = 0;
  double largest = 0;  // absolute; NaN against a number counts as infinity
  int64_t largest_at = -1;
  double largest_relative = 0;  // |a - b| / max(|a|, |b|)
};

Difference CompareValues(const std::vector<float>& a,
                         const std::vector<float>& b);

// "[2, 17]" for flat index 2 * 64 + 17 of shape (9, 64).
std::string IndexText(int64_t flat, const qkscope::v1::Layer& header);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_FILES_NORM_STATISTICS_H_
