// Ops of the forward pass, but for attention, against naive loops in float64.
#include <algorithm>

#include "tests/engine/conformance.h"

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
      if (rows > 1) x[2 * dim - 1] = kNaN;  // takes its own row only
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

TEST_P(RowOpsTest, Rope) {
  Random random(3);
  struct Case {
    int heads, head_dim, rotary;
  };
  for (const Case& c : {Case{1, 2, 2}, Case{3, 8, 8}, Case{2, 10, 4},
                        Case{9, 64, 64}, Case{1, 80, 32}}) {
    const int context = 50;
    const int half = c.rotary / 2;
    const std::vector<float> table = random.Normal(context * c.rotary);
    std::vector<int32_t> positions = {0, 49, 7, 7};
    while (positions.size() < 70) positions.push_back(random.Below(context));
    const size_t width = c.heads * c.head_dim;
    std::vector<float> x = random.Normal(positions.size() * width);
    x[width] = kNaN;  // takes its own pair only
    std::vector<double> want(x.begin(), x.end());
    for (size_t i = 0; i < positions.size() * c.heads; ++i) {
      const float* cos = &table[positions[i / c.heads] * c.rotary];
      for (int d = 0; d < half; ++d) {
        const double a = x[i * c.head_dim + d];
        const double b = x[i * c.head_dim + d + half];
        want[i * c.head_dim + d] = a * cos[d] - b * cos[d + half];
        want[i * c.head_dim + d + half] = b * cos[d] + a * cos[d + half];
      }
    }
    DeviceVector<float> device(backend(), x);
    const DeviceVector<float> device_table(backend(), table);
    backend().Rope(device.data(), c.heads, c.head_dim, c.rotary,
                   device_table.data(), positions);
    const std::vector<float> got = device.Read();
    ExpectNmse(got, want, 8 * kEpsilon * kEpsilon,
               absl::StrCat("head_dim ", c.head_dim));
    for (size_t i = 0; i < got.size(); ++i) {  // beyond rotary: as it was
      if (static_cast<int>(i) % c.head_dim >= c.rotary) {
        EXPECT_EQ(got[i], x[i]);
      }
    }
  }
}

TEST_P(RowOpsTest, GatedActivation) {
  Random random(4);
  for (int n : {1, 5, 7, 11, 13, 33, 257, 40001}) {
    std::vector<float> gate = random.Normal(n, 4.0f);
    const std::vector<float> up = random.Normal(n);
    const float special[] = {100.0f, -100.0f, kNaN, kInf,  88.0f, -88.0f,
                             0.0f,   -0.0f,   1e4f, -1e4f, 1e38f, -1e38f};
    for (int i = 0; i < std::min<int>(n, std::size(special)); ++i) {
      gate[n - 1 - i] = special[i];
    }
    std::vector<double> want;
    for (int i = 0; i < n; ++i) {
      want.push_back(gate[i] / (1 + std::exp(-double{gate[i]})) * up[i]);
    }
    DeviceVector<float> device(backend(), gate);
    const DeviceVector<float> device_up(backend(), up);
    backend().GatedActivation(device.data(), device_up.data(), n,
                              Activation::kSilu);
    // Below exp(-88) float32 has no sigmoid left.
    ExpectEach(device.Read(), want, 16 * kEpsilon, 1e-35,
               absl::StrCat("n ", n));
  }
}

TEST_P(RowOpsTest, GatedActivationFarFromZero) {
  std::vector<float> gate;
  std::vector<double> want;
  for (float x = -3000; x <= 3000; x += 0.5f) {
    gate.push_back(x);
    want.push_back(x / (1 + std::exp(-double{x})));
  }
  DeviceVector<float> device(backend(), gate);
  const DeviceVector<float> up(backend(),
                               std::vector<float>(gate.size(), 1.0f));
  backend().GatedActivation(device.data(), up.data(),
                            static_cast<int64_t>(gate.size()),
                            Activation::kSilu);
  ExpectEach(device.Read(), want, 16 * kEpsilon, 1e-35, "silu");
}

TEST_P(RowOpsTest, GatedActivationOfAValueIsTheSameEverywhere) {
  const int n = 100;
  DeviceVector<float> gate(backend(), std::vector<float>(n, 1.2345f));
  const DeviceVector<float> up(backend(), std::vector<float>(n, 0.789f));
  backend().GatedActivation(gate.data(), up.data(), n, Activation::kSilu);
  const std::vector<float> got = gate.Read();
  ExpectSame(got, std::vector<float>(n, got[0]), "silu");
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
  backend().CopyOnDevice(y.data(), x.data(), 3 * sizeof(float));
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
