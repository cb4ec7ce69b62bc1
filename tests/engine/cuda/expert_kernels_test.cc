// Compares the kernels of experts with plain loops.
#include <algorithm>
#include <numeric>

#include "engine/cuda/kernels.h"
#include "tests/engine/cuda/kernel_testing.h"

namespace qk::testing {
namespace {

TEST(ExpertKernelTest, RouteExperts) {
  Random random(7);
  for (int experts : {2, 3, 16, 60}) {
    for (int chosen : {1, 2}) {
      const int rows = 9;
      std::vector<float> logits = random.Normal(rows * experts, 2.0f);
      logits[1] = logits[0] = 50.0f;  // a tie goes to the lower index
      const Array<float> device(logits);
      const std::vector<Route> routes = InEveryOrder("route", [&] {
        const Array<Route> out(rows * chosen);
        cuda::RouteExperts(device.data(), rows, experts, chosen, out.data(),
                           kStream);
        return out.Read();
      });
      for (int r = 0; r < rows; ++r) {
        const float* row = &logits[r * experts];
        double sum = 0;
        for (int e = 0; e < experts; ++e) sum += std::exp(double{row[e]});
        std::vector<int> order(experts);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int a, int b) { return row[a] > row[b]; });
        for (int i = 0; i < chosen; ++i) {
          EXPECT_EQ(routes[r * chosen + i].expert, order[i]);
          EXPECT_NEAR(routes[r * chosen + i].weight,
                      std::exp(double{row[order[i]]}) / sum, 1e-6);
        }
      }
    }
  }
}

TEST(ExpertKernelTest, RouteExpertsPutsNanLast) {
  const Array<float> logits(std::vector<float>{kNaN, 1.0f, kNaN, 2.0f});
  const Array<Route> out(2);
  cuda::RouteExperts(logits.data(), 1, 4, 2, out.data(), kStream);
  const std::vector<Route> routes = out.Read();
  EXPECT_EQ(routes[0].expert, 3);
  EXPECT_EQ(routes[1].expert, 1);
  EXPECT_TRUE(std::isnan(routes[0].weight));  // NaN is not hidden
}

TEST(ExpertKernelTest, GroupAndCombine) {
  Random random(9);
  const int rows = 45, chosen = 3, experts = 20, dim = 150;
  std::vector<int32_t> ids;
  for (int r = 0; r < rows; ++r) {
    const int first = random.Below(experts);  // expert 7 has no row
    for (int i : {0, 5, 2}) {
      const int id = (first + i) % experts;
      ids.push_back(id == 7 ? (first + 9) % experts : id);
    }
  }
  const std::vector<float> weights = random.Normal(ids.size());
  std::vector<Route> routes;
  for (size_t i = 0; i < ids.size(); ++i)
    routes.push_back({ids[i], weights[i]});
  const Array<Route> device_routes(routes);
  const Array<int32_t> places(ids.size()), offsets(experts + 1);
  const std::vector<int32_t> row_of = InEveryOrder("group", [&] {
    const Array<int32_t> out(ids.size());
    cuda::GroupRows(device_routes.data(), rows, chosen, experts,
                    {offsets.data(), out.data(), places.data()}, kStream);
    return out.Read();
  });
  std::vector<int32_t> want, want_offsets = {0};
  const std::vector<int32_t> place_of = places.Read();
  for (int e = 0; e < experts; ++e) {
    for (size_t slot = 0; slot < ids.size(); ++slot) {
      if (ids[slot] != e) continue;
      EXPECT_EQ(place_of[slot], static_cast<int>(want.size()));
      want.push_back(static_cast<int>(slot) / chosen);
    }
    want_offsets.push_back(static_cast<int>(want.size()));
  }
  ExpectSame(row_of, want, "rows");
  ExpectSame(offsets.Read(), want_offsets, "offsets");

  const std::vector<float> x = random.Normal(ids.size() * dim);
  std::vector<float> sums(rows * dim, 0.0f);
  for (int e = 0; e < experts; ++e) {
    for (size_t slot = 0; slot < ids.size(); ++slot) {
      for (int d = 0; ids[slot] == e && d < dim; ++d) {
        sums[slot / chosen * dim + d] +=
            weights[slot] * x[place_of[slot] * dim + d];
      }
    }
  }
  const Array<float> device_x(x), out(sums.size());
  cuda::CombineExperts(device_x.data(), device_routes.data(),
                       {nullptr, nullptr, places.data()}, rows, chosen, dim,
                       out.data(), kStream);
  ExpectSame(out.Read(), sums, "sums");
}

TEST(ExpertKernelTest, GatherRows) {
  Random random(8);
  const int dim = 133;
  const std::vector<float> x = random.Normal(6 * dim);
  const std::vector<int32_t> rows = {1, 4, 5};
  const Array<float> device(x);
  const Array<int32_t> device_rows(rows);
  const Array<float> gathered(rows.size() * dim);
  const Array<uint16_t> half(rows.size() * dim);
  cuda::GatherRows(device.data(), device_rows.data(), 3, dim,
                   {gathered.data(), half.data()}, kStream);
  std::vector<float> want;
  for (int32_t row : rows) {
    want.insert(want.end(), &x[row * dim], &x[row * dim] + dim);
  }
  ExpectSame(gathered.Read(), want, "gathered");
  ExpectSame(half.Read(), ToBf16(want), "gathered, bf16");
}

}  // namespace
}  // namespace qk::testing
