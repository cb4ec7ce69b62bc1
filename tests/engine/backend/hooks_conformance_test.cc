// Ops of hooks and disruption against naive loops in float64.
#include <algorithm>
#include <numeric>

#include "tests/engine/backend/conformance.h"

namespace qk::testing {
namespace {

using Rule = DisruptionRule;

class HooksTest : public ConformanceTest {};
INSTANTIATE_TEST_SUITE_P(Backends, HooksTest,
                         ::testing::ValuesIn(AllBackends()), BackendName);

struct Shape {
  int rows, heads, head_dim, first_position;
  int width() const { return heads * head_dim; }
};

const Shape kShapes[] = {{1, 1, 1, 0},     {5, 3, 7, 60},  {130, 2, 11, 3},
                         {200, 9, 64, 64}, {33, 1, 13, 5}, {70, 3, 128, 1000}};

HeadRows View(const DeviceVector<float>& x, const Shape& s) {
  return {x.data(), s.rows, s.heads, s.head_dim, s.first_position};
}

// All rows, every third, and the last alone.
std::vector<std::vector<int>> RowChoices(int rows) {
  std::vector<int> all(rows), third;
  std::iota(all.begin(), all.end(), 0);
  for (int i = 0; i < rows; i += 3) third.push_back(i);
  return {all, third, {rows - 1}, {}};
}

TEST_P(HooksTest, AddMoments) {
  Random random(1);
  for (const Shape& s : kShapes) {
    const std::vector<float> x = random.Normal(s.rows * s.width(), 3.0f);
    const DeviceVector<float> device(backend(), x);
    for (const std::vector<int>& rows : RowChoices(s.rows)) {
      for (bool with_sums : {true, false}) {
        const std::vector<double> before(s.width(), 0.25);
        DeviceVector<double> squares(backend(), before),
            sums(backend(), before);
        backend().AddMoments(
            View(device, s), rows,
            {squares.data(), with_sums ? sums.data() : nullptr});
        const std::vector<double> got = squares.Read(), got_sums = sums.Read();
        for (int i = 0; i < s.width(); ++i) {
          double square = 0.25, sum = 0.25, size = 0.25;
          for (int row : rows) {
            const double v = x[row * s.width() + i];
            square += v * v;
            sum += v;
            size += std::abs(v);
          }
          EXPECT_TRUE(std::abs(got[i] - square) <= 1e-14 * square) << i;
          EXPECT_TRUE(with_sums ? std::abs(got_sums[i] - sum) <= 1e-14 * size
                                : got_sums[i] == 0.25)
              << i;
        }
      }
    }
  }
}

// Blocks of 64 absolute positions: a prompt cut at any of their edges gives the
// same bytes.
TEST_P(HooksTest, MomentsDoNotDependOnTheSplitOfAPrompt) {
  Random random(2);
  const Shape whole = {200, 3, 24, 10};
  const DeviceVector<float> x(backend(), random.Normal(200 * whole.width()));
  const std::vector<double> zeros(whole.width(), 0.0);
  const auto rows_of = [](int n) {
    std::vector<int> rows(n);
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
  };
  DeviceVector<double> squares(backend(), zeros), sums(backend(), zeros);
  backend().AddMoments(View(x, whole), rows_of(200),
                       {squares.data(), sums.data()});
  DeviceVector<double> parts(backend(), zeros), part_sums(backend(), zeros);
  for (const auto& [begin, end] :
       {std::pair<int, int>{0, 54}, {54, 182}, {182, 200}}) {
    const HeadRows part = {x.data() + begin * whole.width(), end - begin, 3, 24,
                           10 + begin};
    backend().AddMoments(part, rows_of(end - begin),
                         {parts.data(), part_sums.data()});
  }
  ExpectSame(parts.Read(), squares.Read(), "squares");
  ExpectSame(part_sums.Read(), sums.Read(), "sums");
}

TEST_P(HooksTest, MomentsKeepNanInItsColumn) {
  const Shape s = {3, 1, 5, 0};
  std::vector<float> x(15, 1.0f);
  x[7] = kNaN;
  x[8] = kInf;
  const DeviceVector<float> device(backend(), x);
  DeviceVector<double> squares(backend(), std::vector<double>(5, 0.0));
  backend().AddMoments(View(device, s), std::vector<int>{0, 1, 2},
                       {squares.data(), nullptr});
  const std::vector<double> got = squares.Read();
  EXPECT_EQ(got[1], 3.0);
  EXPECT_TRUE(std::isnan(got[2]));
  EXPECT_EQ(got[3], std::numeric_limits<double>::infinity());
}

TEST_P(HooksTest, FinishNormsAndTokenNorms) {
  Random random(3);
  for (const Shape& s : kShapes) {
    std::vector<float> x = random.Normal(s.rows * s.width(), 1e19f);
    x.back() = kNaN;
    const DeviceVector<float> device(backend(), x);
    std::vector<int> heads = {s.heads - 1};
    if (s.heads > 2) heads = {0, s.heads - 1};
    for (const std::vector<int>& rows : RowChoices(s.rows)) {
      std::vector<double> want;
      for (int row : rows) {
        for (int head : heads) {
          double sum = 0;
          for (int d = 0; d < s.head_dim; ++d) {
            const double v = x[row * s.width() + head * s.head_dim + d];
            sum += v * v;
          }
          want.push_back(std::sqrt(sum));
        }
      }
      DeviceVector<float> out(backend(), want.size());
      backend().TokenNorms(View(device, s), rows, heads, out.data());
      ExpectEach(out.Read(), want, 2 * kEpsilon, 0, "token norms");
    }
    std::vector<double> squares, want;
    for (int i = 0; i < s.width(); ++i) squares.push_back(x[i] * 1e19 * i);
    squares[0] = std::nan("");
    for (int head : heads) {
      for (int d = 0; d < s.head_dim; ++d) {
        want.push_back(std::sqrt(squares[head * s.head_dim + d]));
      }
    }
    const DeviceVector<double> from(backend(), squares);
    DeviceVector<float> out(backend(), want.size());
    backend().FinishNorms(from.data(), heads, s.head_dim, out.data());
    ExpectEach(out.Read(), want, 2 * kEpsilon, 0, "norms");
  }
}

TEST_P(HooksTest, ExpandHeads) {
  Random random(4);
  for (const Shape& s : kShapes) {
    for (int group : {1, 2, 3, 8}) {
      std::vector<float> x = random.Normal(s.rows * s.width());
      x[0] = kNaN;
      std::vector<float> want;
      for (int i = 0; i < s.rows * s.heads; ++i) {
        for (int g = 0; g < group; ++g) {
          want.insert(want.end(), x.begin() + i * s.head_dim,
                      x.begin() + (i + 1) * s.head_dim);
        }
      }
      const DeviceVector<float> device(backend(), x);
      DeviceVector<float> out(backend(), want.size());
      backend().ExpandHeads(View(device, s), s.heads * group, out.data());
      ExpectSame(out.Read(), want, absl::StrCat("group ", group));
    }
  }
}

TEST_P(HooksTest, CopyOutChoosesRowsAndHeads) {
  Random random(5);
  for (const Shape& s : kShapes) {
    const std::vector<float> x = random.Normal(s.rows * s.width());
    const DeviceVector<float> device(backend(), x);
    std::vector<int> heads = {s.heads - 1};
    if (s.heads > 2) heads = {0, s.heads - 1};
    for (const std::vector<int>& rows : RowChoices(s.rows)) {
      std::vector<float> want;
      for (int row : rows) {
        for (int head : heads) {
          const auto from = x.begin() + row * s.width() + head * s.head_dim;
          want.insert(want.end(), from, from + s.head_dim);
        }
      }
      DeviceVector<float> out(backend(), want.size());
      backend().CopyOut(View(device, s), rows, heads, RawDtype::kF32,
                        out.data());
      ExpectSame(out.Read(), want, "f32");
    }
  }
}

// The value of a 16-bit float with `mantissa` bits, and where its sign's
// exponents begin, by definition. Codes from the infinity on: 2^(max + 1),
// which is where rounding to infinity is decided.
double ValueOf(int code, int mantissa) {
  const int bias = mantissa == 10 ? 15 : 127;
  const int exponent = code >> mantissa;
  const int fraction = code & ((1 << mantissa) - 1);
  if (exponent == 0) return std::ldexp(fraction, 1 - bias - mantissa);
  return std::ldexp((1 << mantissa) + fraction, exponent - bias - mantissa);
}

TEST_P(HooksTest, CopyOutRoundsToNearestEven) {
  for (RawDtype dtype : {RawDtype::kF16, RawDtype::kBF16}) {
    const int mantissa = dtype == RawDtype::kF16 ? 10 : 7;
    const int infinity = dtype == RawDtype::kF16 ? 0x7c00 : 0x7f80;
    std::vector<float> x;
    std::vector<uint16_t> want;
    const auto add = [&](float value, int code) {
      x.push_back(value);
      want.push_back(static_cast<uint16_t>(code));
      x.push_back(-value);
      want.push_back(static_cast<uint16_t>(code | 0x8000));
    };
    for (int code = 0; code < infinity; ++code) {
      const float exact = static_cast<float>(ValueOf(code, mantissa));
      const float middle = static_cast<float>(
          (ValueOf(code, mantissa) + ValueOf(code + 1, mantissa)) / 2);
      add(exact, code);
      add(middle, code + code % 2);
      add(std::nextafter(middle, 0.0f), code);
      add(std::nextafter(middle, kInf), code + 1);
    }
    add(kInf, infinity);
    add(std::numeric_limits<float>::max(), infinity);
    const int n = static_cast<int>(x.size());
    const DeviceVector<float> device(backend(), x);
    DeviceVector<uint16_t> out(backend(), x.size());
    backend().CopyOut({device.data(), 1, 1, n, 0}, std::vector<int>{0},
                      std::vector<int>{0}, dtype, out.data());
    ExpectSame(out.Read(), want, dtype == RawDtype::kF16 ? "f16" : "bf16");

    const DeviceVector<float> nan(backend(), std::vector<float>{kNaN, -kNaN});
    DeviceVector<uint16_t> nan_out(backend(), 2);
    backend().CopyOut({nan.data(), 1, 1, 2, 0}, std::vector<int>{0},
                      std::vector<int>{0}, dtype, nan_out.data());
    for (uint16_t code : nan_out.Read()) EXPECT_GT(code & 0x7fff, infinity);
  }
}

}  // namespace
}  // namespace qk::testing
