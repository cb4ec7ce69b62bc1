// The kernels for pairs of bf16 against the instructions written out
// (bf16_model.h), bit for bit.
#include "engine/cpu/pair_product.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/panels.h"
#include "gtest/gtest.h"
#include "tests/engine/cpu/bf16_model.h"

namespace qk::testing {
namespace {

using cpu::Into;
using cpu::PairKernel;
using cpu::PairProduct;

enum class Numbers { kOrdinary, kTiny, kAny };

// bf16 and float32 values of one kind.
class Source {
 public:
  Source(Numbers kind, int seed) : kind_(kind), random_(seed) {}

  float Float() {
    const auto bits = static_cast<uint32_t>(random_());
    switch (kind_) {
      case Numbers::kOrdinary:
        return static_cast<float>(bits) / 2147483648.0f - 1.0f;
      case Numbers::kTiny:  // products near the smallest normal number
        return std::bit_cast<float>((bits & 0x807fffffu) |
                                    ((bits >> 24) % 70 << 23));
      case Numbers::kAny:
        return std::bit_cast<float>(bits);
    }
    return 0;
  }
  uint16_t Half() { return RoundToBF16(Float()); }

 private:
  const Numbers kind_;
  std::mt19937_64 random_;
};

struct Shape {
  size_t rows, k, panels;
  Into into;
  bool bias, side_by_side;  // b's panels: (pairs, n, 2) as one matrix
};

float Flushed(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}
// The sum of two floats, where subnormal numbers count as zero.
float Plus(float a, float b) { return Flushed(Flushed(a) + Flushed(b)); }

// One product, with room between the rows of a and c.
struct Product {
  Product(const PairKernel& kernel, const Shape& shape, Numbers kind, int seed)
      : kernel(kernel), shape(shape) {
    Source source(kind, seed);
    x.resize(shape.rows * shape.k);
    for (float& value : x) value = source.Float();
    const size_t step = 2 * kernel.pair_step;
    depth = (shape.k + step - 1) / step * step;
    n = shape.panels * kernel.width;
    b.resize(depth * n);
    c.resize(shape.rows * (n + kGap), 7.0f);
    for (float& value : c) value = source.Float();
    bias.resize(n);
    for (float& value : bias) value = source.Float();
    p.rows = shape.rows;
    p.b_stride = 2 * (shape.side_by_side ? n : kernel.width);
    p.panel_stride = kernel.width * (shape.side_by_side ? 2 : depth);
    for (size_t k = 0; k < shape.k; ++k) {
      for (size_t j = 0; j < n; ++j) B(k, j) = source.Half();
    }
    p.a_stride = depth + 2 * kGap;
    a.assign(shape.rows * p.a_stride * kernel.a_bytes, 0);
    for (size_t r = 0; r < shape.rows; ++r) {
      kernel.round(&x[r * shape.k], shape.k,
                   &a[r * p.a_stride * kernel.a_bytes]);
    }
    p.a = a.data();
    p.b = b.data();
    p.panels = shape.panels;
    p.pairs = depth / 2;
    p.into = shape.into;
    p.bias = shape.bias ? bias.data() : nullptr;
    p.c = c.data();
    p.c_stride = n + kGap;
  }

  uint16_t& B(size_t k, size_t j) {
    return b[j / kernel.width * p.panel_stride + k / 2 * p.b_stride +
             j % kernel.width * 2 + k % 2];
  }

  // The chain that FMA and AVX512BF16 promise.
  float Chain(size_t row, size_t j) {
    const float before = c[row * p.c_stride + j];
    float sum = shape.into == Into::kContinue ? before : 0.0f;
    for (size_t k = 0; k < depth; k += 2) {
      uint16_t of[2], times[2];
      for (size_t i : {0, 1}) {
        const bool there = k + i < shape.k;
        of[i] = there ? RoundToBF16(x[row * shape.k + k + i]) : 0;
        times[i] = there ? B(k + i, j) : 0;
      }
      sum = DotPair(sum, of, times);
    }
    if (shape.bias) sum = Plus(sum, bias[j]);
    return shape.into == Into::kAdd ? Plus(sum, before) : sum;
  }

  static constexpr size_t kGap = 3;
  const PairKernel& kernel;
  const Shape shape;
  size_t depth, n;
  std::vector<float> x, c, bias;
  std::vector<uint16_t> b;
  std::vector<uint8_t> a;
  PairProduct p;
};

bool Same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (size_t rows : {1, 2, 3, 7, 12, 13, 16, 17, 31, 33, 49, 96}) {
    for (size_t k : {1, 2, 31, 64, 97}) {
      const size_t panels = 1 + (rows + k) % 5;
      const auto into = static_cast<Into>((rows + k / 2) % 3);
      shapes.push_back({rows, k, panels, into, k % 4 < 2, rows % 2 == 0});
    }
  }
  return shapes;
}

std::string NameOf(const Shape& s) {
  return std::to_string(s.rows) + " rows, k " + std::to_string(s.k) + ", " +
         std::to_string(s.panels) + " panels";
}

// Whether the instruction set has fused multiply-adds.
bool Fuses() {
  return cpu::HighwayTarget() != "SSE4" && cpu::HighwayTarget() != "SSSE3";
}

class ChainTest : public ::testing::TestWithParam<const PairKernel*> {};
std::vector<const PairKernel*> ChainKernels() {
  std::vector<const PairKernel*> kernels;
  if (Fuses()) kernels.push_back(&cpu::FmaPairKernel());
  if (cpu::Avx512Bf16PairKernel() != nullptr) {
    kernels.push_back(cpu::Avx512Bf16PairKernel());
  }
  return kernels;
}
INSTANTIATE_TEST_SUITE_P(Kernels, ChainTest,
                         ::testing::ValuesIn(ChainKernels()),
                         [](const auto& info) {
                           return std::string(info.param->name);
                         });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ChainTest);

TEST_P(ChainTest, EveryElementIsItsChain) {
  int seed = 0;
  for (Numbers kind : {Numbers::kOrdinary, Numbers::kTiny, Numbers::kAny}) {
    for (const Shape& shape : Shapes()) {
      Product product(*GetParam(), shape, kind, ++seed);
      std::vector<float> want = product.c;
      for (size_t r = 0; r < shape.rows; ++r) {
        for (size_t j = 0; j < product.n; ++j) {
          want[r * product.p.c_stride + j] = product.Chain(r, j);
        }
      }
      GetParam()->multiply(product.p);
      for (size_t i = 0; i < want.size(); ++i) {
        ASSERT_TRUE(Same(product.c[i], want[i]))
            << NameOf(shape) << ", numbers " << static_cast<int>(kind)
            << ", element " << i << ": " << product.c[i] << ", want "
            << want[i];
      }
    }
  }
}

// The tiles of AMX, or, where there is none, of its model alone.
class TilesTest : public ::testing::TestWithParam<const PairKernel*> {};
std::vector<const PairKernel*> TilesKernels() {
  std::vector<const PairKernel*> kernels = {&TilesModelKernel()};
  if (cpu::AmxPairKernel() != nullptr) kernels.push_back(cpu::AmxPairKernel());
  return kernels;
}
INSTANTIATE_TEST_SUITE_P(Kernels, TilesTest,
                         ::testing::ValuesIn(TilesKernels()),
                         [](const auto& info) {
                           return info.param == &TilesModelKernel()
                                      ? "ModelOfAmx"
                                      : "Amx";
                         });

TEST_P(TilesTest, IsTheProductWithinFloat32sError) {
  int seed = 100;
  for (const Shape& shape : Shapes()) {
    Product product(*GetParam(), shape, Numbers::kOrdinary, ++seed);
    const std::vector<float> before = product.c;
    GetParam()->multiply(product.p);
    for (size_t r = 0; r < shape.rows; ++r) {
      for (size_t j = 0; j < product.p.c_stride; ++j) {
        const size_t at = r * product.p.c_stride + j;
        double sum =
            shape.into != Into::kSet || j >= product.n ? before[at] : 0.0;
        if (shape.bias && j < product.n) sum += product.bias[j];
        for (size_t k = 0; j < product.n && k < shape.k; ++k) {
          sum += double{FromBF16(RoundToBF16(product.x[r * shape.k + k]))} *
                 FromBF16(product.B(k, j));
        }
        ASSERT_LE(std::abs(product.c[at] - sum), j < product.n ? 2e-5 : 0.0)
            << NameOf(shape) << ", row " << r << ", column " << j;
      }
    }
  }
}

TEST_P(TilesTest, ARowHasTheSameBytesAlone) {
  const Shape shape = {45, 100, 3, Into::kAdd, true, false};
  Product all(*GetParam(), shape, Numbers::kOrdinary, 1);
  std::vector<float> alone = all.c;
  for (size_t r = 0; r < shape.rows; ++r) {
    PairProduct one = all.p;
    one.a = static_cast<const uint8_t*>(all.p.a) +
            r * all.p.a_stride * GetParam()->a_bytes;
    one.rows = 1;
    one.c = alone.data() + r * all.p.c_stride;
    GetParam()->multiply(one);
  }
  GetParam()->multiply(all.p);
  EXPECT_EQ(all.c, alone);
}

TEST(PairKernelsTest, TheFastestIsOneOfThem) {
  const std::vector<const PairKernel*> kernels = cpu::PairKernels();
  EXPECT_EQ(
      std::count(kernels.begin(), kernels.end(), &cpu::FastestPairKernel()), 1);
  EXPECT_EQ(&cpu::FastestPairKernel(), &cpu::FastestPairKernel());
  EXPECT_EQ(kernels.front(), &cpu::FmaPairKernel());
}

TEST(PairKernelsTest, RoundingKeepsNanAndTies) {
  // Ties go to the even neighbour; a NaN whose payload is in the lower half
  // stays a NaN.
  const std::vector<float> x = {std::bit_cast<float>(0x3f808000u),
                                std::bit_cast<float>(0x3f818000u),
                                std::bit_cast<float>(0x7f800001u), -1.0f,
                                std::bit_cast<float>(0x3f80ffffu)};
  for (const PairKernel* kernel : cpu::PairKernels()) {
    std::vector<uint8_t> out(6 * kernel->a_bytes, 0xff);
    kernel->round(x.data(), x.size(), out.data());
    std::vector<float> got(6);
    for (size_t i = 0; i < got.size(); ++i) {
      if (kernel->a_bytes == sizeof(float)) {  // FMA: pairs are exchanged
        std::memcpy(&got[i ^ 1], out.data() + 4 * i, sizeof(float));
      } else {
        uint16_t half;
        std::memcpy(&half, out.data() + 2 * i, sizeof(half));
        got[i] = FromBF16(half);
      }
    }
    EXPECT_EQ(got[0], 1.0f) << kernel->name;
    EXPECT_EQ(got[1], 1.015625f) << kernel->name;
    EXPECT_TRUE(std::isnan(got[2])) << kernel->name;
    EXPECT_EQ(got[3], -1.0f) << kernel->name;
    EXPECT_EQ(got[4], 1.0078125f) << kernel->name;
    EXPECT_EQ(got[5], 0.0f) << kernel->name;
  }
}

}  // namespace
}  // namespace qk::testing
