// Compares ops of state-space mixers and experts with naive loops in float64.
#include <algorithm>
#include <numeric>

#include "tests/engine/backend/conformance.h"

namespace qk::testing {
namespace {

class MixerOpsTest : public ConformanceTest {};

INSTANTIATE_TEST_SUITE_P(Backends, MixerOpsTest,
                         ::testing::ValuesIn(AllBackends()), BackendName);

double Silu(double x) { return x / (1 + std::exp(-x)); }

TEST_P(MixerOpsTest, CausalConvSilu) {
  Random random(1);
  for (int kernel : {1, 2, 4}) {
    for (int inner : {1, 5, 33, 257}) {
      for (int rows : {1, 2, 7, 40}) {
        const std::vector<float> x = random.Normal(rows * inner);
        const std::vector<float> weight = random.Normal(inner * kernel);
        const std::vector<float> bias = random.Normal(inner);
        const std::vector<float> past = random.Normal(inner * (kernel - 1));
        std::vector<double> want(x.size());
        std::vector<float> want_state(past.size());
        for (int c = 0; c < inner; ++c) {
          std::vector<float> all(past.begin() + c * (kernel - 1),
                                 past.begin() + (c + 1) * (kernel - 1));
          for (int r = 0; r < rows; ++r) all.push_back(x[r * inner + c]);
          for (int r = 0; r < rows; ++r) {
            double sum = bias[c];
            for (int i = 0; i < kernel; ++i) {
              sum += double{weight[c * kernel + i]} * all[r + i];
            }
            want[r * inner + c] = Silu(sum);
          }
          std::copy(all.end() - (kernel - 1), all.end(),
                    want_state.begin() + c * (kernel - 1));
        }
        DeviceVector<float> values(backend(), x);
        DeviceVector<float> state(backend(), past);
        const DeviceVector<float> w(backend(), weight), b(backend(), bias);
        const auto table =
            backend()
                .MakeRowTable({SequenceRows{0, rows, 0, {}, state.data()}})
                .value();
        backend().CausalConvSilu(values.data(), *table, inner, kernel, w.data(),
                                 b.data(), 0);
        const std::string what =
            absl::StrCat(rows, " x ", inner, ", kernel ", kernel);
        ExpectNmse(values.Read(), want, 1e-12, what);
        ExpectSame(state.Read(), want_state, what);
      }
    }
  }
}

TEST_P(MixerOpsTest, SelectiveScan) {
  Random random(2);
  for (int state_size : {1, 5, 16}) {
    for (int inner : {1, 7, 33}) {
      for (int rows : {1, 2, 40}) {
        const auto values = [&](int n) { return random.Normal(n, 0.7f); };
        const std::vector<float> x = values(rows * inner),
                                 dt = values(rows * inner),
                                 gate = values(rows * inner),
                                 b = values(rows * state_size),
                                 c = values(rows * state_size),
                                 a_log = values(inner * state_size),
                                 d = values(inner),
                                 past = values(inner * state_size);
        std::vector<double> h(past.begin(), past.end());
        std::vector<double> want(x.size());
        for (int r = 0; r < rows; ++r) {
          for (int i = 0; i < inner; ++i) {
            const int at = r * inner + i;
            const double step = std::log1p(std::exp(double{dt[at]}));
            double y = 0;
            for (int s = 0; s < state_size; ++s) {
              double& state = h[i * state_size + s];
              const double a = -std::exp(double{a_log[i * state_size + s]});
              state = std::exp(a * step) * state +
                      step * b[r * state_size + s] * x[at];
              y += state * c[r * state_size + s];
            }
            want[at] = (y + double{d[i]} * x[at]) * Silu(gate[at]);
          }
        }
        DeviceVector<float> io(backend(), x), state(backend(), past);
        const DeviceVector<float> dev_dt(backend(), dt), dev_b(backend(), b),
            dev_c(backend(), c), dev_gate(backend(), gate),
            dev_a(backend(), a_log), dev_d(backend(), d);
        const auto table =
            backend()
                .MakeRowTable({SequenceRows{0, rows, 0, {}, state.data()}})
                .value();
        backend().SelectiveScan({dev_dt.data(), dev_b.data(), dev_c.data(),
                                 dev_gate.data(), dev_a.data(), dev_d.data()},
                                *table, inner, state_size, 0, io.data());
        const std::string what =
            absl::StrCat(rows, " x ", inner, " x ", state_size);
        ExpectNmse(io.Read(), want, 1e-11, what);
        ExpectNmse(state.Read(), h, 1e-11, what + ", state");
      }
    }
  }
}

// Both mixers run over several sequences, each with its own state, as alone.
TEST_P(MixerOpsTest, SequencesDoNotTouchEachOther) {
  Random random(5);
  const int inner = 33, kernel = 4, size = 5, offset = 3;
  const DeviceVector<float> w(backend(), random.Normal(inner * kernel)),
      a_log(backend(), random.Normal(inner * size)),
      d(backend(), random.Normal(inner));
  const std::vector<int> counts = {7, 1, 40};
  const int rows = 48;
  const std::vector<float> x = random.Normal(rows * inner),
                           dt = random.Normal(rows * inner),
                           gate = random.Normal(rows * inner),
                           b = random.Normal(rows * size),
                           c = random.Normal(rows * size);
  // Runs the sequences from `first` to `last`; returns x and the states.
  const auto run = [&](size_t first, size_t last) {
    int begin = 0, n = 0;
    for (size_t i = 0; i < last; ++i) (i < first ? begin : n) += counts[i];
    const auto part = [&](const std::vector<float>& all, int width) {
      return std::vector<float>(all.begin() + begin * width,
                                all.begin() + (begin + n) * width);
    };
    DeviceVector<float> io(backend(), part(x, inner));
    const DeviceVector<float> dev_dt(backend(), part(dt, inner)),
        dev_gate(backend(), part(gate, inner)), dev_b(backend(), part(b, size)),
        dev_c(backend(), part(c, size));
    std::vector<std::unique_ptr<DeviceVector<float>>> states;
    std::vector<SequenceRows> sequences;
    for (size_t i = first, row = 0; i < last; row += counts[i++]) {
      Random own(static_cast<uint32_t>(i));
      states.push_back(std::make_unique<DeviceVector<float>>(
          backend(), own.Normal(offset + inner * (kernel - 1 + size))));
      sequences.push_back(
          {static_cast<int>(row), counts[i], 0, {}, states.back()->data()});
    }
    const auto table = backend().MakeRowTable(sequences).value();
    backend().CausalConvSilu(io.data(), *table, inner, kernel, w.data(),
                             nullptr, offset);
    backend().SelectiveScan({dev_dt.data(), dev_b.data(), dev_c.data(),
                             dev_gate.data(), a_log.data(), d.data()},
                            *table, inner, size, offset + inner * (kernel - 1),
                            io.data());
    std::pair<std::vector<float>, std::vector<float>> out = {io.Read(), {}};
    for (const auto& state : states) {
      const std::vector<float> values = state->Read();
      out.second.insert(out.second.end(), values.begin(), values.end());
    }
    return out;
  };
  const auto all = run(0, 3);
  std::vector<float> values, states;
  for (size_t i = 0; i < 3; ++i) {
    const auto [value, state] = run(i, i + 1);
    values.insert(values.end(), value.begin(), value.end());
    states.insert(states.end(), state.begin(), state.end());
  }
  ExpectSame(all.first, values, "rows");
  ExpectSame(all.second, states, "states");
}

TEST_P(MixerOpsTest, RouteExperts) {
  Random random(3);
  for (int experts : {2, 3, 16}) {
    for (int chosen : {1, 2}) {
      const int rows = 9;
      std::vector<float> logits = random.Normal(rows * experts, 2.0f);
      logits[1] = logits[0] = 50.0f;  // a tie goes to the lower index
      const DeviceVector<float> device(backend(), logits);
      DeviceVector<Route> out(backend(), rows * chosen);
      backend().RouteExperts(device.data(), rows, experts, chosen, out.data());
      const std::vector<Route> routes = out.Read();
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

TEST_P(MixerOpsTest, RouteExpertsPutsNanLast) {
  const std::vector<float> logits = {kNaN, 1.0f, kNaN, 2.0f};
  const DeviceVector<float> device(backend(), logits);
  DeviceVector<Route> out(backend(), 2);
  backend().RouteExperts(device.data(), 1, 4, 2, out.data());
  const std::vector<Route> routes = out.Read();
  EXPECT_EQ(routes[0].expert, 3);
  EXPECT_EQ(routes[1].expert, 1);
  EXPECT_TRUE(std::isnan(routes[0].weight));  // NaN is not hidden
}

TEST_P(MixerOpsTest, GatherRows) {
  Random random(4);
  const int dim = 13;
  const std::vector<float> x = random.Normal(6 * dim);
  const std::vector<int> rows = {1, 4, 5};
  const DeviceVector<float> device(backend(), x);
  DeviceVector<float> gathered(backend(), rows.size() * dim);
  backend().GatherRows(device.data(), rows, dim, gathered.data());
  std::vector<float> want;
  for (int row : rows) {
    want.insert(want.end(), &x[row * dim], &x[row * dim] + dim);
  }
  ExpectSame(gathered.Read(), want, "gathered");
}

// Rows go to their experts and come back, expert 7 has none.
TEST_P(MixerOpsTest, RowsAreGroupedByExpertAndCombined) {
  Random random(9);
  const int rows = 45, chosen = 3, experts = 20, dim = 24, out = 16;
  std::vector<Route> routes;
  for (int r = 0; r < rows; ++r) {
    const int first = random.Below(experts);
    for (int i : {0, 5, 2}) {
      const int e = (first + i) % experts;
      routes.push_back({e == 7 ? (first + 9) % experts : e,
                        static_cast<float>(random.Below(100)) / 64});
    }
  }
  const int count = rows * chosen;
  const DeviceVector<Route> device_routes(backend(), routes);
  DeviceVector<int32_t> begin(backend(), experts + 1), row(backend(), count),
      of_route(backend(), count);
  const ExpertPlaces places = {begin.data(), row.data(), of_route.data()};
  backend().GroupRows(device_routes.data(), rows, chosen, experts, places);
  std::vector<int32_t> want_begin = {0}, want_row, want_of(count);
  for (int e = 0; e < experts; ++e) {
    for (int i = 0; i < count; ++i) {
      if (routes[i].expert != e) continue;
      want_of[i] = static_cast<int32_t>(want_row.size());
      want_row.push_back(i / chosen);
    }
    want_begin.push_back(static_cast<int32_t>(want_row.size()));
  }
  ExpectSame(begin.Read(), want_begin, "begin");
  ExpectSame(row.Read(), want_row, "row");
  ExpectSame(of_route.Read(), want_of, "of_route");

  const std::vector<float> x = random.Normal(rows * dim);
  const DeviceVector<float> device_x(backend(), x);
  DeviceVector<float> in(backend(), count * dim), up(backend(), count * out),
      sums(backend(), rows * out);
  backend().GatherPlaces(device_x.data(), row.data(), count, dim, in.data());
  std::vector<std::vector<float>> weights;
  std::vector<std::unique_ptr<Matrix>> matrices;
  for (int e = 0; e < experts; ++e) {
    weights.push_back(random.Normal(out * dim));
    matrices.push_back(backend()
                           .PackMatrix(out, dim, ComputeType::kF32,
                                       {[&](int64_t b, int64_t end, float* to) {
                                         std::copy_n(&weights[e][b * dim],
                                                     (end - b) * dim, to);
                                       }},
                                       nullptr)
                           .value());
    backend().MatMulRange(in.data(), {{*matrices[e], up.data()}}, count,
                          begin.data() + e);
  }
  backend().CombineExperts(up.data(), device_routes.data(), places, rows,
                           chosen, out, sums.data());
  std::vector<double> want(rows * out, 0.0);
  for (int i = 0; i < count; ++i) {
    for (int o = 0; o < out; ++o) {
      double sum = 0;
      for (int d = 0; d < dim; ++d) {
        sum += double{x[i / chosen * dim + d]} *
               weights[routes[i].expert][o * dim + d];
      }
      want[i / chosen * out + o] += routes[i].weight * sum;
    }
  }
  ExpectNmse(sums.Read(), want, 1e-12, "sums");
}

}  // namespace
}  // namespace qk::testing
