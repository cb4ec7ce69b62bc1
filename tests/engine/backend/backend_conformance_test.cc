// Compares the forward pass's ops, except attention, with float64 loops.
#include <algorithm>

#include "tests/engine/backend/conformance.h"

namespace qk::testing {
namespace {

const int kSizes[] = {1, 5, 7, 11, 13, 33, 257};

class RowOpsTest : public ConformanceTest {};

INSTANTIATE_TEST_SUITE_P(Backends, RowOpsTest,
                         ::testing::ValuesIn(AllBackends()), BackendName);

TEST_P(RowOpsTest, Embed) {
  Random random(1);
  for (int hidden : kSizes) {
    const int vocab = 9;
    const std::vector<float> table = random.Normal(vocab * hidden);
    const std::vector<int32_t> tokens = {8, 0, 3, 3, 8};
    std::vector<uint16_t> half;
    for (float x : table) half.push_back(RoundToBF16(x));
    const DeviceVector<float> wide(backend(), table);
    const DeviceVector<uint16_t> narrow(backend(), half);
    for (ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      DeviceVector<float> out(backend(), tokens.size() * hidden);
      const void* from = type == ComputeType::kF32
                             ? static_cast<const void*>(wide.data())
                             : narrow.data();
      backend().Embed(from, type, tokens, hidden, out.data());
      std::vector<float> want;
      for (int32_t token : tokens) {
        const std::vector<float> row =
            Rounded({table.begin() + token * hidden,
                     table.begin() + (token + 1) * hidden},
                    type);
        want.insert(want.end(), row.begin(), row.end());
      }
      ExpectSame(out.Read(), want, absl::StrCat("hidden ", hidden));
    }
  }
}

std::vector<double> NormOracle(const std::vector<float>& x,
                               const std::vector<float>& weight, float eps) {
  const size_t dim = weight.size();
  std::vector<double> out;
  for (size_t row = 0; row < x.size() / dim; ++row) {
    double squares = 0;
    for (size_t i = 0; i < dim; ++i) {
      squares += double{x[row * dim + i]} * x[row * dim + i];
    }
    for (size_t i = 0; i < dim; ++i) {
      out.push_back(x[row * dim + i] /
                    std::sqrt(squares / static_cast<double>(dim) + eps) *
                    weight[i]);
    }
  }
  return out;
}

TEST_P(RowOpsTest, RmsNorm) {
  Random random(2);
  for (int dim : {1, 5, 7, 11, 13, 33, 257, 576}) {
    for (int rows : {1, 2, 17, 40}) {
      const std::string what = absl::StrCat(rows, " x ", dim);
      const float eps = 1e-5f;
      std::vector<float> x = random.Normal(rows * dim, 3.0f);
      std::fill_n(x.begin(), dim, 0.0f);    // eps keeps it finite
      if (rows > 1) x[2 * dim - 1] = kNaN;  // affects its own row only
      if (rows > 2) x[3 * dim - 1] = kInf;
      const std::vector<float> weight = random.Normal(dim);
      DeviceVector<float> in(backend(), x);
      const DeviceVector<float> scale(backend(), weight);
      DeviceVector<float> out(backend(), x.size());
      backend().RmsNorm(in.data(), scale.data(), eps, rows, dim, out.data());
      const std::vector<float> got = out.Read();
      ExpectNmse(got, NormOracle(x, weight, eps),
                 4 * kEpsilon * kEpsilon * (dim + 16), what);
      backend().RmsNorm(in.data(), scale.data(), eps, rows, dim, in.data());
      ExpectSame(in.Read(), got, what + " in place");
    }
  }
}

TEST_P(RowOpsTest, LayerNorm) {
  Random random(12);
  for (int dim : {2, 5, 7, 11, 13, 33, 257, 768}) {
    for (int rows : {1, 2, 17, 40}) {
      const float eps = 1e-5f;
      std::vector<float> x = random.Normal(rows * dim, 3.0f);
      for (float& value : x) value += 2.0f;
      std::fill_n(x.begin(), dim, 0.5f);    // eps keeps it finite
      if (rows > 1) x[2 * dim - 1] = kNaN;  // affects its own row only
      const std::vector<float> weight = random.Normal(dim);
      const std::vector<float> bias = random.Normal(dim);
      std::vector<double> want;
      for (int r = 0; r < rows; ++r) {
        const float* row = &x[r * dim];
        double mean = 0, variance = 0;
        for (int i = 0; i < dim; ++i) mean += double{row[i]} / dim;
        for (int i = 0; i < dim; ++i) {
          variance += (row[i] - mean) * (row[i] - mean) / dim;
        }
        for (int i = 0; i < dim; ++i) {
          want.push_back((row[i] - mean) / std::sqrt(variance + eps) *
                             weight[i] +
                         bias[i]);
        }
      }
      DeviceVector<float> in(backend(), x);
      const DeviceVector<float> scale(backend(), weight);
      const DeviceVector<float> shift(backend(), bias);
      backend().LayerNorm(in.data(), scale.data(), shift.data(), eps, rows, dim,
                          in.data());
      ExpectNmse(in.Read(), want, 16 * kEpsilon * kEpsilon * (dim + 16),
                 absl::StrCat(rows, " x ", dim));
    }
  }
}

TEST_P(RowOpsTest, Rope) {
  Random random(3);
  struct Case {
    int heads, head_dim, rotary;
  };
  for (const Case& c : {Case{1, 2, 2}, Case{3, 8, 8}, Case{2, 10, 4},
                        Case{9, 64, 64}, Case{1, 80, 32}}) {
    const int rows = 70;
    const int half = c.rotary / 2;
    const std::vector<float> table = random.Normal(rows * c.rotary);
    const size_t width = c.heads * c.head_dim;
    std::vector<float> x = random.Normal(rows * width);
    x[width] = kNaN;  // affects its own pair only
    std::vector<double> want(x.begin(), x.end());
    for (int i = 0; i < rows * c.heads; ++i) {
      const float* cos = &table[i / c.heads * c.rotary];
      for (int d = 0; d < half; ++d) {
        const double a = x[i * c.head_dim + d];
        const double b = x[i * c.head_dim + d + half];
        want[i * c.head_dim + d] = a * cos[d] - b * cos[d + half];
        want[i * c.head_dim + d + half] = b * cos[d] + a * cos[d + half];
      }
    }
    DeviceVector<float> device(backend(), x);
    const DeviceVector<float> device_table(backend(), table);
    backend().Rope(device.data(), rows, c.heads, c.head_dim, c.rotary,
                   device_table.data());
    const std::vector<float> got = device.Read();
    ExpectNmse(got, want, 8 * kEpsilon * kEpsilon,
               absl::StrCat("head_dim ", c.head_dim));
    // Dims beyond rotary do not change.
    for (size_t i = 0; i < got.size(); ++i) {
      if (static_cast<int>(i) % c.head_dim >= c.rotary) {
        EXPECT_EQ(got[i], x[i]);
      }
    }
  }
}

TEST_P(RowOpsTest, MakeRopeTable) {
  RopeConfig rope;
  rope.rotary_dims = 10;
  rope.attention_factor = 1.25;
  rope.sections = {2, 1, 2};
  const int rows = 45;
  const std::vector<double> frequencies = {1, 0.5, 0.3, 1e-2, 1e-5};
  const std::vector<double> others = {2, 0.1, 0.01, 1e-3, 1e-6};
  std::vector<RopePosition> positions;
  for (int i = 0; i < rows; ++i) positions.push_back({i, 7 * i, 100000 - i});
  DeviceVector<float> table(backend(), rows * 10);
  const absl::Span<const RopePosition> all(positions);
  backend().MakeRopeTable(rope,
                          {RopeRows{0, all.subspan(0, 40), frequencies},
                           RopeRows{40, all.subspan(40), others}},
                          table.data());
  const std::vector<float> got = table.Read();
  const int section[] = {0, 0, 1, 2, 2};
  std::vector<double> want;
  for (int row = 0; row < rows; ++row) {
    for (const bool is_sin : {false, true}) {
      for (int i = 0; i < 5; ++i) {
        // Angles are float32 products, as in transformers.
        const float angle =
            static_cast<float>(positions[row][section[i]]) *
            static_cast<float>((row < 40 ? frequencies : others)[i]);
        want.push_back(1.25 * (is_sin ? std::sin(double{angle})
                                      : std::cos(double{angle})));
      }
    }
  }
  ExpectEach(got, want, 4 * kEpsilon, 1e-12, "table");
}

constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGelu,
                                       Activation::kGeluTanh, Activation::kRelu,
                                       Activation::kQuickGelu};

double ActivationOracle(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:
      // This is 1 + tanh(y), without the cancellation where y is far below 0.
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) *
                               (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return x < 0 ? 0 : x;
    case Activation::kQuickGelu:
      return x / (1 + std::exp(-1.702 * x));
  }
  return 0;
}

// Returns an activation's allowed error where its exact value is nearly 0.
double ActivationSlack(Activation activation, double x) {
  const bool gelu =
      activation == Activation::kGelu || activation == Activation::kGeluTanh;
  if (activation == Activation::kQuickGelu) {
    // 1.702 x rounds, and exp propagates the error.
    return 1e-35 + 2 * kEpsilon * std::abs(1.702 * x) *
                       std::abs(ActivationOracle(activation, x));
  }
  // 1 + erf(x) and 1 + tanh(x) lose what is below the precision of 1.
  return gelu ? 8 * kEpsilon * std::abs(x) : 1e-35;
}

TEST_P(RowOpsTest, Activate) {
  Random random(4);
  for (Activation activation : kActivations) {
    for (int n : {1, 5, 7, 11, 13, 33, 257, 40001}) {
      std::vector<float> x = random.Normal(n, 4.0f);
      const std::vector<float> times = random.Normal(n);
      const float special[] = {100.0f, -100.0f, kNaN,  kInf, 88.0f,
                               -88.0f, 0.0f,    -0.0f, 1e4f, -1e4f};
      for (int i = 0; i < std::min<int>(n, std::size(special)); ++i) {
        x[n - 1 - i] = special[i];
      }
      for (bool gated : {false, true}) {
        DeviceVector<float> device(backend(), x);
        const DeviceVector<float> factors(backend(), times);
        backend().Activate(device.data(), gated ? factors.data() : nullptr, n,
                           activation);
        const std::vector<float> got = device.Read();
        for (int i = 0; i < n; ++i) {
          const double factor = gated ? times[i] : 1.0;
          const double want = ActivationOracle(activation, x[i]) * factor;
          ExpectEach({got[i]}, {want}, 16 * kEpsilon,
                     ActivationSlack(activation, x[i]) * std::abs(factor),
                     absl::StrCat("activation ", static_cast<int>(activation),
                                  " of ", x[i]));
        }
      }
    }
  }
}

TEST_P(RowOpsTest, ActivateFarFromZero) {
  for (Activation activation : kActivations) {
    std::vector<float> xs;
    for (float x = -3000; x <= 3000; x += 0.5f) xs.push_back(x);
    DeviceVector<float> device(backend(), xs);
    backend().Activate(device.data(), nullptr, static_cast<int64_t>(xs.size()),
                       activation);
    const std::vector<float> got = device.Read();
    for (size_t i = 0; i < xs.size(); ++i) {
      ExpectEach({got[i]}, {ActivationOracle(activation, xs[i])}, 16 * kEpsilon,
                 ActivationSlack(activation, xs[i]),
                 absl::StrCat("activation ", static_cast<int>(activation),
                              " of ", xs[i]));
    }
  }
}

TEST_P(RowOpsTest, ActivateOfAValueIsTheSameEverywhere) {
  const int n = 100;
  for (Activation activation : kActivations) {
    DeviceVector<float> x(backend(), std::vector<float>(n, 1.2345f));
    const DeviceVector<float> times(backend(), std::vector<float>(n, 0.789f));
    backend().Activate(x.data(), times.data(), n, activation);
    const std::vector<float> got = x.Read();
    ExpectSame(got, std::vector<float>(n, got[0]), "activation");
  }
}

TEST_P(RowOpsTest, Softcap) {
  Random random(13);
  for (int n : {1, 7, 33, 40001}) {
    std::vector<float> x = random.Normal(n, 60.0f);
    x[0] = n == 7 ? kNaN : 1e6f;
    std::vector<double> want;
    for (float value : x) want.push_back(30.0 * std::tanh(value / 30.0));
    DeviceVector<float> device(backend(), x);
    backend().Softcap(device.data(), n, 30.0f);
    ExpectEach(device.Read(), want, 16 * kEpsilon, 1e-35,
               absl::StrCat("n ", n));
  }
}

TEST_P(RowOpsTest, Scale) {
  Random random(14);
  for (int n : {1, 7, 33, 40001}) {
    std::vector<float> x = random.Normal(n);
    x[n / 2] = n == 7 ? kNaN : kInf;
    std::vector<float> want = x;
    for (float& value : want) value *= 25.3f;
    DeviceVector<float> device(backend(), x);
    backend().Scale(device.data(), n, 25.3f);
    ExpectSame(device.Read(), want, absl::StrCat("n ", n));
  }
}

TEST_P(RowOpsTest, Add) {
  Random random(5);
  for (int n : {1, 5, 7, 11, 13, 33, 257, 40001}) {
    std::vector<float> x = random.Normal(n);
    const std::vector<float> y = random.Normal(n);
    x[n / 2] = n % 3 == 0 ? kNaN : kInf;
    std::vector<float> want = x;
    for (int i = 0; i < n; ++i) want[i] += y[i];
    DeviceVector<float> device(backend(), x);
    const DeviceVector<float> other(backend(), y);
    backend().Add(device.data(), other.data(), n);
    ExpectSame(device.Read(), want, absl::StrCat("n ", n));
  }
}

TEST_P(RowOpsTest, Memory) {
  DeviceVector<float> x(backend(), std::vector<float>{1, 2, 3, 4});
  DeviceVector<float> y(backend(), 4);
  backend().CopyOnDevice(
      {CopyJob{y.data(), x.data(), sizeof(float)},
       CopyJob{y.data() + 1, x.data() + 1, 2 * sizeof(float)}});
  backend().Zero(x.data() + 1, sizeof(float));
  ExpectSame(x.Read(), {1, 0, 3, 4}, "zero");
  const std::vector<float> copied = y.Read();
  EXPECT_EQ(copied[2], 3.0f);
  EXPECT_TRUE(std::isnan(copied[3]));
  DeviceVector<float> none(backend(), std::vector<float>{});
  EXPECT_TRUE(none.Read().empty());
}

}  // namespace
}  // namespace qk::testing
