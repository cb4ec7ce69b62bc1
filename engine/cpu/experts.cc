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

void GroupRows(const Route* routes, int rows, int chosen, int experts,
               const ExpertPlaces& to) {
  const int n = rows * chosen;
  std::fill_n(to.begin, experts + 1, 0);
  for (int i = 0; i < n; ++i) ++to.begin[routes[i].expert + 1];
  std::partial_sum(to.begin, to.begin + experts + 1, to.begin);
  std::vector<int32_t> next(to.begin, to.begin + experts);
  for (int i = 0; i < n; ++i) {
    const int32_t place = next[routes[i].expert]++;
    to.row[place] = i / chosen;
    to.of_route[i] = place;
  }
}

void CombineExperts(const float* x, const Route* routes,
                    const ExpertPlaces& places, int rows, int chosen, int dim,
                    float* out, ThreadPool& pool) {
  constexpr int kRows = 32;
  pool.For((rows + kRows - 1) / kRows, [&](int64_t chunk, int) {
    std::vector<int> order(chosen);
    const int end = std::min<int>(rows, static_cast<int>(chunk + 1) * kRows);
    for (int row = static_cast<int>(chunk) * kRows; row < end; ++row) {
      const int64_t first = int64_t{row} * chosen;
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int a, int b) {
        return routes[first + a].expert < routes[first + b].expert;
      });
      float* to = out + int64_t{row} * dim;
      std::fill_n(to, dim, 0.0f);
      for (int i : order) {
        const float weight = routes[first + i].weight;
        const float* from = x + int64_t{places.of_route[first + i]} * dim;
        for (int d = 0; d < dim; ++d) to[d] += weight * from[d];
      }
    }
  });
}

}  // namespace qk::cpu
