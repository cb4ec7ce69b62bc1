#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/cpu/kernels.h"

namespace qk::cpu {

void RouteExperts(const float* logits, int rows, int experts, int chosen,
                  Route* routes) {
  std::vector<int32_t> order(experts);
  for (int row = 0; row < rows; ++row) {
    const float* x = logits + static_cast<int64_t>(row) * experts;
    float max = x[0];
    for (int e = 1; e < experts; ++e) max = std::max(max, x[e]);
    float sum = 0;
    for (int e = 0; e < experts; ++e) sum += std::exp(x[e] - max);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + chosen, order.end(),
                      [&](int32_t a, int32_t b) {
                        if (x[a] > x[b] || x[a] < x[b]) return x[a] > x[b];
                        // A NaN ranks after all numbers.
                        const bool nan_a = std::isnan(x[a]);
                        const bool nan_b = std::isnan(x[b]);
                        return nan_a != nan_b ? nan_b : a < b;
                      });
    for (int i = 0; i < chosen; ++i) {
      *routes++ = {order[i], std::exp(x[order[i]] - max) / sum};
    }
  }
}

void GatherRows(const float* x, absl::Span<const int> rows, int dim,
                float* out) {
  for (int row : rows) {
    out = std::copy_n(x + static_cast<int64_t>(row) * dim, dim, out);
  }
}

void AddScaledRows(const float* x, absl::Span<const int> rows,
                   absl::Span<const float> factors, int dim, float* out) {
  for (size_t i = 0; i < rows.size(); ++i) {
    float* to = out + static_cast<int64_t>(rows[i]) * dim;
    for (int d = 0; d < dim; ++d) to[d] += factors[i] * x[i * dim + d];
  }
}

}  // namespace qk::cpu
