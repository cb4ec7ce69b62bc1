// Statistics of a matrix of norms: how many entries are massive, and where they
// are (arXiv:2502.01563, section 3).
#ifndef QKSCOPE_ENGINE_TYPES_STATISTICS_H_
#define QKSCOPE_ENGINE_TYPES_STATISTICS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace qk {

struct MassiveEntry {
  int head = 0;
  int dim = 0;
  float norm = 0;
  float ratio = 0;                   // norm / mean of its head
  std::optional<double> wavelength;  // tokens
};

struct Statistics {
  int massive_count = 0;
  float ratio = 0;  // max over heads of (max / mean)
  float max = 0;
  std::optional<int> top_dim;
  std::optional<float> top_dim_share;
  std::optional<float> low_frequency_share;
  int64_t non_finite_count = 0;
  std::vector<MassiveEntry> top;  // massive entries, largest ratio first
  MassiveEntry largest;  // the entry with the largest ratio, massive or not
};

// What the statistics of a frame take beside its norms, as ComputeStatistics.
struct StatisticsInputs {
  std::vector<double> wavelengths;
  double lambda = 0;
  int top_n = 0;
};

// `norms` is (heads, head_dim), row-major. Entries that are not finite count
// only in non_finite_count; if there are no others, ratio and max are NaN.
// `head_ids` gives the head of each row (of captured heads); empty means 0,
// 1, 2... `wavelengths` has one entry per frequency index and is empty without
// RoPE; dims d and d + rotary_dims / 2 share index d, where rotary_dims = 2 x
// wavelengths.size(). `lambda` and `top_n` are those of StatisticsSpec.
Statistics ComputeStatistics(absl::Span<const float> norms, int heads,
                             int head_dim, absl::Span<const int> head_ids,
                             absl::Span<const double> wavelengths,
                             double lambda, int top_n);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_STATISTICS_H_
