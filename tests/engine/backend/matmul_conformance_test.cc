// Compares MatMul of every kernel and type with naive loops in float64.
#include <algorithm>

#include "tests/engine/backend/conformance.h"

namespace qk::testing {
namespace {

struct MatMulCase {
  TestBackend kernel;
  int threads;
  ComputeType type;
};

std::string NameOf(const MatMulCase& c) {
  return absl::StrCat(InTestName(c.kernel),
                      c.type == ComputeType::kF32 ? "_f32_" : "_bf16_",
                      c.threads);
}

void PrintTo(const MatMulCase& c, std::ostream* out) { *out << NameOf(c); }

// A kernel's bf16 is in this list only if the device has it; the names of the
// tests show whether it does.
std::vector<MatMulCase> MatMulCases() {
  std::vector<MatMulCase> cases;
  for (int threads : {1, 2}) {
    for (const TestBackend& kernel : TestKernels()) {
      cases.push_back({kernel, threads, ComputeType::kF32});
      if (kernel.has_bf16) {
        cases.push_back({kernel, threads, ComputeType::kBF16});
      }
    }
  }
  return cases;
}

class MatMulTest : public ::testing::TestWithParam<MatMulCase> {
 protected:
  MatMulTest()
      : backend_(GetParam().kernel.make(GetParam().threads)),
        type_(GetParam().type) {}

  void Pack(const std::vector<float>& w, int out, int in,
            const std::vector<float>& bias) {
    matrix_ = Packed(w, out, in, bias);
  }

  std::unique_ptr<Matrix> Packed(const std::vector<float>& w, int out, int in,
                                 const std::vector<float>& bias) {
    const auto rows = [&](int64_t begin, int64_t end, float* to) {
      ASSERT_TRUE(0 <= begin && begin <= end && end <= out);
      std::copy(w.begin() + begin * in, w.begin() + end * in, to);
    };
    auto matrix = backend_
                      ->PackMatrix(out, in, type_, {rows},
                                   bias.empty() ? nullptr : bias.data())
                      .value();
    EXPECT_EQ(matrix->out_features(), out);
    EXPECT_EQ(matrix->in_features(), in);
    EXPECT_GE(matrix->bytes(), int64_t{out} * in * BytesOf(type_));
    return matrix;
  }

  std::vector<float> Multiply(const std::vector<float>& x, int rows) {
    const DeviceVector<float> in(*backend_, x);
    DeviceVector<float> out(
        *backend_, static_cast<size_t>(rows) * matrix_->out_features());
    backend_->MatMul(in.data(), {{*matrix_, out.data()}}, rows);
    return out.Read();
  }

  // bf16 rounds both inputs and sums in float32, so one bound serves both
  // types: rounding walks at random along the sum.
  void Check(int rows, int out, int in, bool with_bias, Random& random) {
    const std::vector<float> x = random.Normal(static_cast<size_t>(rows) * in);
    const std::vector<float> w = random.Normal(static_cast<size_t>(out) * in);
    const std::vector<float> bias =
        with_bias ? random.Normal(out) : std::vector<float>{};
    Pack(w, out, in, bias);
    const std::vector<float> x_seen = Rounded(x, type_);
    const std::vector<float> w_seen = Rounded(w, type_);
    std::vector<double> want;
    for (int r = 0; r < rows; ++r) {
      for (int o = 0; o < out; ++o) {
        double sum = with_bias ? bias[o] : 0.0;
        for (int i = 0; i < in; ++i) {
          sum += double{x_seen[r * in + i]} * w_seen[o * in + i];
        }
        want.push_back(sum);
      }
    }
    ExpectNmse(Multiply(x, rows), want, 4 * kEpsilon * kEpsilon * (in + 16),
               absl::StrCat(rows, " rows, ", out, " x ", in));
  }

  std::unique_ptr<Backend> backend_;
  ComputeType type_;
  std::unique_ptr<Matrix> matrix_;
};

INSTANTIATE_TEST_SUITE_P(Kernels, MatMulTest,
                         ::testing::ValuesIn(MatMulCases()),
                         [](const ::testing::TestParamInfo<MatMulCase>& info) {
                           return NameOf(info.param);
                         });

TEST_P(MatMulTest, OddSizes) {
  Random random(1);
  int i = 0;
  const int row_counts[] = {1, 2, 5, 33, 64, 65, 130};
  for (int out : {1, 5, 7, 11, 13, 33, 257}) {
    for (int in : {1, 5, 7, 11, 13, 33, 257}) {
      Check(row_counts[i % 7], out, in, i % 2 == 0, random);
      ++i;
    }
  }
}

TEST_P(MatMulTest, EveryRowCount) {
  Random random(2);
  for (int rows = 1; rows <= 130; rows += rows < 70 ? 1 : 13) {
    Check(rows, 37, 29, false, random);
  }
}

TEST_P(MatMulTest, RealSize) {
  Random random(3);
  Check(1, 576, 1536, false, random);
  Check(64, 576, 1536, true, random);
  Check(33, 1536, 576, false, random);
}

TEST_P(MatMulTest, ARowsBytesDoNotDependOnTheOthers) {
  Random random(4);
  const int out = 577, in = 576, rows = 130;
  Pack(random.Normal(out * in), out, in, random.Normal(out));
  const std::vector<float> x = random.Normal(rows * in);
  const std::vector<float> all = Multiply(x, rows);
  for (const auto& [begin, count] : {std::pair<int, int>{0, 1},
                                     {129, 1},
                                     {63, 2},
                                     {7, 8},
                                     {3, 12},
                                     {5, 64},
                                     {1, 129}}) {
    const std::vector<float> some = Multiply(
        {x.begin() + begin * in, x.begin() + (begin + count) * in}, count);
    ExpectSame(some,
               {all.begin() + begin * out, all.begin() + (begin + count) * out},
               absl::StrCat("rows from ", begin, ", ", count));
  }
}

// Several products of an input, some of them added to what is there, have the
// bytes of each alone.
TEST_P(MatMulTest, ProductsDoNotTouchEachOther) {
  Random random(6);
  const int in = 57;
  for (int rows : {1, 2, 33, 200}) {
    const DeviceVector<float> x(*backend_, random.Normal(rows * in));
    std::vector<std::unique_ptr<Matrix>> weights;
    std::vector<std::unique_ptr<DeviceVector<float>>> outs;
    std::vector<std::vector<float>> want;
    std::vector<Product> products;
    for (int out : {33, 1, 130, 64}) {
      weights.push_back(
          Packed(random.Normal(out * in), out, in,
                 out == 33 ? std::vector<float>{} : random.Normal(out)));
      const std::vector<float> before = random.Normal(rows * out);
      outs.push_back(std::make_unique<DeviceVector<float>>(*backend_, before));
      const bool add = out != 1 && out != 64;
      products.push_back({*weights.back(), outs.back()->data(), add});
      DeviceVector<float> alone(*backend_, before.size());
      backend_->MatMul(x.data(), {{*weights.back(), alone.data()}}, rows);
      want.push_back(alone.Read());
      for (size_t i = 0; i < before.size() && add; ++i) {
        want.back()[i] = before[i] + want.back()[i];
      }
    }
    backend_->MatMul(x.data(), products, rows);
    for (size_t i = 0; i < outs.size(); ++i) {
      ExpectSame(outs[i]->Read(), want[i], absl::StrCat(rows, " rows, ", i));
    }
  }
}

TEST_P(MatMulTest, NanAndInfStayInTheirRow) {
  Random random(5);
  const int out = 33, in = 57, rows = 9;
  const std::vector<float> w = random.Normal(out * in);
  Pack(w, out, in, {});
  std::vector<float> x = random.Normal(rows * in);
  const std::vector<float> clean = Multiply(x, rows);
  x[3 * in + 56] = kNaN;
  x[5 * in] = kInf;
  const std::vector<float> got = Multiply(x, rows);
  for (int r = 0; r < rows; ++r) {
    for (int o = 0; o < out; ++o) {
      const float value = got[r * out + o];
      if (r == 3) {
        EXPECT_TRUE(std::isnan(value)) << o;
      } else if (r == 5) {
        EXPECT_EQ(value, w[o * in] > 0 ? kInf : -kInf) << o;
      } else {
        EXPECT_EQ(value, clean[r * out + o]) << r << ", " << o;
      }
    }
  }
}

TEST_P(MatMulTest, ANanInAWeightTakesItsColumn) {
  const int out = 7, in = 5;
  std::vector<float> w(out * in, 1.0f);
  w[4 * in + 2] = kNaN;
  Pack(w, out, in, {});
  const std::vector<float> got = Multiply(std::vector<float>(2 * in, 1.0f), 2);
  for (int i = 0; i < 2 * out; ++i) {
    if (i % out == 4) {
      EXPECT_TRUE(std::isnan(got[i]));
    } else {
      EXPECT_EQ(got[i], 5.0f);
    }
  }
}

}  // namespace
}  // namespace qk::testing
