// Compares norms, RoPE, activations and embedding with loops in float64.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/cuda/kernels.h"
#include "engine/types/rope_rows.h"
#include "tests/engine/cuda/kernel_testing.h"

namespace qk::testing {
namespace {

TEST(NormKernelTest, RmsNorm) {
  Random random(1);
  for (int dim : {1, 5, 33, 256, 257, 576}) {
    const int rows = 11;
    const std::string what = absl::StrCat("dim ", dim);
    std::vector<float> x = random.Normal(rows * dim, 3.0f);
    std::fill_n(x.begin(), dim, 0.0f);  // eps keeps it finite
    x[2 * dim - 1] = kNaN;              // affects its own row only
    x[3 * dim - 1] = kInf;
    const std::vector<float> w = random.Normal(dim);
    const Array<float> weight(w);
    std::vector<double> want;
    for (int r = 0; r < rows; ++r) {
      double squares = 0;
      for (int i = 0; i < dim; ++i) {
        squares += double{x[r * dim + i]} * x[r * dim + i];
      }
      for (int i = 0; i < dim; ++i) {
        want.push_back(x[r * dim + i] / std::sqrt(squares / dim + 1e-5) * w[i]);
      }
    }
    const std::vector<float> got = InEveryOrder(what, [&] {
      const Array<float> in(x);
      const Array<uint16_t> half(x.size());
      cuda::RmsNorm(in.data(), weight.data(), 1e-5f, rows, dim,
                    {in.data(), half.data()}, kStream);
      const std::vector<float> out = in.Read();
      const std::vector<uint16_t> rounded = half.Read();
      for (size_t i = 0; i < out.size(); ++i) {
        EXPECT_TRUE(std::isnan(out[i]) ? std::isnan(FromBF16(rounded[i]))
                                       : rounded[i] == RoundToBF16(out[i]));
      }
      return out;
    });
    ExpectNmse(got, want, 4 * kEpsilon * kEpsilon * (dim + 16), what);
    // A row alone has the same bytes.
    const Array<float> one(
        std::vector<float>(x.begin() + 5 * dim, x.begin() + 6 * dim));
    cuda::RmsNorm(one.data(), weight.data(), 1e-5f, 1, dim, {one.data()},
                  kStream);
    ExpectSame(one.Read(), {got.begin() + 5 * dim, got.begin() + 6 * dim},
               what + " alone");
  }
}

TEST(NormKernelTest, LayerNorm) {
  Random random(2);
  for (int dim : {2, 7, 33, 257, 768}) {
    const int rows = 9;
    const std::string what = absl::StrCat("dim ", dim);
    std::vector<float> x = random.Normal(rows * dim, 3.0f);
    for (float& v : x) v += 2.0f;
    x[2 * dim - 1] = kNaN;
    const std::vector<float> w = random.Normal(dim), b = random.Normal(dim);
    std::vector<double> want;
    for (int r = 0; r < rows; ++r) {
      const float* row = &x[r * dim];
      double mean = 0, variance = 0;
      for (int i = 0; i < dim; ++i) mean += double{row[i]} / dim;
      for (int i = 0; i < dim; ++i) {
        variance += (row[i] - mean) * (row[i] - mean) / dim;
      }
      for (int i = 0; i < dim; ++i) {
        want.push_back((row[i] - mean) / std::sqrt(variance + 1e-5) * w[i] +
                       b[i]);
      }
    }
    const Array<float> weight(w), bias(b);
    const std::vector<float> got = InEveryOrder(what, [&] {
      const Array<float> in(x), out(x.size());
      cuda::LayerNorm(in.data(), weight.data(), bias.data(), 1e-5f, rows, dim,
                      {out.data()}, kStream);
      return out.Read();
    });
    ExpectNmse(got, want, 16 * kEpsilon * kEpsilon * (dim + 16), what);
  }
}

TEST(RopeKernelTest, TheTableIsThatOfTheHost) {
  RopeConfig rope;
  rope.rotary_dims = 24;
  rope.attention_factor = 1.25;
  rope.frequencies = BaseFrequencies(10000, 24);
  const std::vector<RopePosition> places = {
      {0, 0, 0}, {1, 2, 3}, {70, 71, 72}, {100000, 5, 2000000}};
  const int half = 12;
  for (bool sections : {false, true}) {
    if (sections) rope.sections = {5, 3, 4};
    std::vector<int32_t> positions, rows;  // written from the last one
    std::vector<float> want(places.size() * 2 * half), frequencies;
    // The second set has other frequencies; rows 1 and 3 take it.
    std::vector<double> other = rope.frequencies;
    for (double& f : other) f *= 0.5;
    for (double f : rope.frequencies) frequencies.push_back(f);
    for (double f : other) frequencies.push_back(f);
    for (size_t i = 0; i < places.size(); ++i) {
      positions.insert(positions.end(), places[i].begin(), places[i].end());
      FillRopeRow(rope, i % 2 == 0 ? rope.frequencies : other, places[i],
                  &want[(places.size() - 1 - i) * 2 * half]);
      rows.push_back(static_cast<int32_t>(places.size() - 1 - i));
    }
    const Array<int32_t> device_positions(positions),
        sets(std::vector<int32_t>{0, 1, 0, 1}), device_rows(rows);
    const Array<float> device_frequencies(frequencies);
    cuda::RopeTable table;
    table.positions = device_positions.data();
    table.frequencies = device_frequencies.data();
    table.frequencies_of_row = sets.data();
    table.places = device_rows.data();
    table.half = half;
    table.factor = 1.25f;
    if (sections) {
      table.num_sections = 3;
      table.section_end[0] = 5;
      table.section_end[1] = 8;
      table.section_end[2] = 12;
    }
    const std::vector<float> got = InEveryOrder("table", [&] {
      const Array<float> out(want.size());
      cuda::MakeRopeTable(table, static_cast<int>(places.size()), out.data(),
                          kStream);
      return out.Read();
    });
    ExpectSame(got, want, sections ? "sections" : "no sections");
  }
}

TEST(RopeKernelTest, Rope) {
  Random random(3);
  struct Case {
    int heads, head_dim, rotary;
  };
  for (const Case& c :
       {Case{1, 2, 2}, Case{2, 10, 4}, Case{9, 64, 64}, Case{1, 80, 32}}) {
    const int rows = 13, half = c.rotary / 2;
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
    const Array<float> device_table(table);
    const std::vector<float> got = InEveryOrder("rope", [&] {
      const Array<float> device(x);
      cuda::Rope(device.data(), rows, c.heads, c.head_dim, c.rotary,
                 device_table.data(), kStream);
      return device.Read();
    });
    ExpectNmse(got, want, 8 * kEpsilon * kEpsilon,
               absl::StrCat("head_dim ", c.head_dim));
    for (size_t i = 0; i < got.size(); ++i) {
      if (static_cast<int>(i) % c.head_dim >= c.rotary) {
        EXPECT_EQ(got[i], x[i]);
      }
    }
  }
}

double ActivationOracle(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) *
                               (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return x < 0 ? 0 : x;
    case Activation::kQuickGelu:
      return x / (1 + std::exp(-1.702 * x));
  }
  return 0;
}

TEST(ActivationKernelTest, Activate) {
  Random random(4);
  for (Activation activation :
       {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
        Activation::kRelu, Activation::kQuickGelu}) {
    std::vector<float> x = random.Normal(kSanitized ? 1100 : 5000, 4.0f);
    const float special[] = {100.0f, -100.0f, kNaN,  kInf, 88.0f,
                             -88.0f, 0.0f,    -0.0f, 1e4f, -1e4f};
    std::copy(std::begin(special), std::end(special), x.end() - 10);
    const std::vector<float> times = random.Normal(x.size());
    const Array<float> factors(times);
    for (bool gated : {false, true}) {
      const std::vector<float> got = InEveryOrder("activation", [&] {
        const Array<float> device(x);
        cuda::Activate(device.data(), gated ? factors.data() : nullptr,
                       static_cast<int64_t>(x.size()), activation,
                       {device.data()}, kStream);
        return device.Read();
      });
      for (size_t i = 0; i < x.size(); ++i) {
        const double factor = gated ? times[i] : 1.0;
        // What is nearly 0 has the error of a number of size x.
        const double slack =
            (1e-35 + 8 * kEpsilon * std::abs(x[i])) * std::abs(factor);
        ExpectEach({got[i]}, {ActivationOracle(activation, x[i]) * factor},
                   16 * kEpsilon, std::isinf(x[i]) ? 0 : slack,
                   absl::StrCat("activation ", static_cast<int>(activation),
                                " of ", x[i]));
      }
    }
  }
}

TEST(ActivationKernelTest, SoftcapAddScaleAndRound) {
  Random random(5);
  for (int n : {1, 7, 33, 2500}) {
    std::vector<float> x = random.Normal(n, 60.0f);
    x[0] = n == 7 ? kNaN : 1e6f;
    const std::vector<float> y = random.Normal(n);
    const Array<float> other(y), in(x);
    const std::string what = absl::StrCat("n ", n);
    std::vector<double> capped;
    std::vector<float> sum, scaled;
    for (int i = 0; i < n; ++i) {
      capped.push_back(30.0 * std::tanh(x[i] / 30.0));
      sum.push_back(x[i] + y[i]);
      scaled.push_back(x[i] * 25.3f);
    }
    const auto run = [&](const auto& op) {
      return InEveryOrder(what, [&] {
        const Array<float> device(x);
        op(device.data());
        return device.Read();
      });
    };
    ExpectEach(run([&](float* v) { cuda::Softcap(v, n, 30.0f, kStream); }),
               capped, 16 * kEpsilon, 1e-35, what);
    ExpectSame(run([&](float* v) { cuda::Add(v, other.data(), n, kStream); }),
               sum, what);
    ExpectSame(run([&](float* v) { cuda::Scale(v, n, 25.3f, kStream); }),
               scaled, what);
    const Array<uint16_t> half(n);
    cuda::RoundToBf16(in.data(), n, half.data(), kStream);
    const std::vector<uint16_t> got = half.Read();
    for (int i = 0; i < n; ++i) {
      EXPECT_TRUE(std::isnan(x[i]) ? std::isnan(FromBF16(got[i]))
                                   : got[i] == RoundToBF16(x[i]));
    }
  }
}

TEST(CopyKernelTest, Embed) {
  Random random(6);
  for (int hidden : {1, 33, 300}) {
    const std::vector<float> table = random.Normal(9 * hidden);
    const std::vector<int32_t> ids = {8, 0, 3, 3, 8};
    const Array<float> wide(table);
    const Array<uint16_t> narrow(ToBf16(table));
    const Array<int32_t> tokens(ids);
    for (ComputeType type : {ComputeType::kF32, ComputeType::kBF16}) {
      const std::vector<float> got = InEveryOrder("embed", [&] {
        const Array<float> out(ids.size() * hidden);
        const void* from = type == ComputeType::kF32
                               ? static_cast<const void*>(wide.data())
                               : narrow.data();
        cuda::Embed(from, type, tokens.data(), static_cast<int>(ids.size()),
                    hidden, out.data(), kStream);
        return out.Read();
      });
      std::vector<float> want;
      for (int32_t id : ids) {
        const std::vector<float> row = Rounded(
            {table.begin() + id * hidden, table.begin() + (id + 1) * hidden},
            type);
        want.insert(want.end(), row.begin(), row.end());
      }
      ExpectSame(got, want, absl::StrCat("hidden ", hidden));
    }
  }
}

}  // namespace
}  // namespace qk::testing
