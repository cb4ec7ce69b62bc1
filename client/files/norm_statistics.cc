#include "client/files/norm_statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace qk::client {

NormStatistics ComputeNormStatistics(const std::vector<float>& norms,
                                     int head_dim, double lambda) {
  NormStatistics statistics;
  for (size_t head = 0; head + head_dim <= norms.size(); head += head_dim) {
    double sum = 0, max = 0;
    int finite = 0;
    for (int d = 0; d < head_dim; ++d) {
      const double norm = norms[head + d];
      if (!std::isfinite(norm)) {
        ++statistics.non_finite;
        continue;
      }
      sum += norm;
      max = std::max(max, norm);
      ++finite;
    }
    if (sum == 0) continue;
    const double mean = sum / finite;
    statistics.ratio = std::max(statistics.ratio, max / mean);
    for (int d = 0; d < head_dim; ++d) {
      const double norm = norms[head + d];
      if (std::isfinite(norm) && norm > lambda * mean) {
        ++statistics.massive_count;
      }
    }
  }
  if (statistics.non_finite > 0 &&
      statistics.non_finite == static_cast<int64_t>(norms.size())) {
    statistics.ratio = std::numeric_limits<double>::quiet_NaN();
  }
  return statistics;
}

Difference CompareValues(const std::vector<float>& a,
                         const std::vector<float>& b) {
  Difference result;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i])) {
      continue;
    }
    ++result.count;
    if (result.first < 0) {
      result.first = static_cast<int64_t>(i);
      result.first_a = a[i];
      result.first_b = b[i];
    }
    double distance = std::fabs(static_cast<double>(a[i]) - b[i]);
    // Two NaNs differ only in their bits; a NaN differs infinitely from a
    // number.
    if (std::isnan(distance)) {
      distance = std::isnan(a[i]) && std::isnan(b[i])
                     ? 0
                     : std::numeric_limits<double>::infinity();
    }
    if (distance > result.largest || result.largest_at < 0) {
      result.largest = distance;
      result.largest_at = static_cast<int64_t>(i);
    }
    const double scale = std::max(std::fabs(a[i]), std::fabs(b[i]));
    if (scale > 0 && std::isfinite(scale)) {
      result.largest_relative =
          std::max(result.largest_relative, distance / scale);
    }
  }
  return result;
}

std::string IndexText(int64_t flat, const qkscope::v1::Layer& header) {
  std::vector<int64_t> index(header.shape_size());
  for (int axis = header.shape_size() - 1; axis >= 0; --axis) {
    const int64_t extent = std::max(header.shape(axis), 1);
    index[axis] = flat % extent;
    flat /= extent;
  }
  return absl::StrCat("[", absl::StrJoin(index, ", "), "]");
}

}  // namespace qk::client
