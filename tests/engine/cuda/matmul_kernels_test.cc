// Compares the matrix products with loops in float64, and a row's bytes in
// every plan and company.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/cuda/matmul.h"
#include "tests/engine/cuda/kernel_testing.h"

namespace qk::testing {
namespace {

using cuda::MatMulPlan;
using cuda::MatMulShape;
using cuda::MatMulTile;

std::vector<MatMulPlan> Plans() {
  std::vector<MatMulPlan> plans;
  for (MatMulTile tile : {MatMulTile::k16, MatMulTile::k64, MatMulTile::k128}) {
    for (bool spread : {false, true}) plans.push_back({tile, spread});
  }
  return plans;
}

std::string NameOf(const MatMulPlan& plan) {
  return absl::StrCat(", tile ", static_cast<int>(plan.tile),
                      plan.spread ? " spread" : "");
}

// A tensor on the device in a compute type.
class Tensor {
 public:
  Tensor(const std::vector<float>& x, ComputeType type)
      : wide_(type == ComputeType::kF32 ? x : std::vector<float>{}),
        narrow_(type == ComputeType::kF32 ? std::vector<uint16_t>{}
                                          : ToBf16(x)),
        type_(type) {}
  const void* data() const {
    return type_ == ComputeType::kF32 ? static_cast<const void*>(wide_.data())
                                      : narrow_.data();
  }

 private:
  Array<float> wide_;
  Array<uint16_t> narrow_;
  ComputeType type_;
};

struct Case {
  int rows, in;
  std::vector<int> out;  // of each product
  bool bias = false, add = false;
};

class Products {
 public:
  Products(const Case& c, ComputeType type, Random& random)
      : case_(c), type_(type), x_(random.Normal(c.rows * c.in)) {
    for (int out : c.out) {
      w_.push_back(random.Normal(static_cast<size_t>(out) * c.in));
      bias_.push_back(random.Normal(out));
      before_.push_back(random.Normal(static_cast<size_t>(c.rows) * out));
      device_w_.emplace_back(w_.back(), type);
      device_bias_.emplace_back(bias_.back());
    }
  }

  std::vector<float>& x() { return x_; }
  std::vector<float>& w(int product) { return w_[product]; }

  // What Run's i-th result was before.
  float Before(size_t i) const {
    size_t p = 0;
    for (; i >= before_[p].size(); ++p) i -= before_[p].size();
    return before_[p][i];
  }

  // Runs rows [begin, begin + count); returns the products' results one after
  // another.
  std::vector<float> Run(const MatMulPlan& plan, int begin, int count,
                         const int32_t* range = nullptr) const {
    const Tensor x({x_.begin() + begin * case_.in,
                    x_.begin() + (begin + count) * case_.in},
                   type_);
    std::vector<Array<float>> outs;
    MatMulShape shape;
    shape.rows = count;
    shape.in = case_.in;
    shape.products = static_cast<int>(case_.out.size());
    shape.range = range;
    for (size_t p = 0; p < case_.out.size(); ++p) {
      const int out = case_.out[p];
      outs.emplace_back(
          std::vector<float>(before_[p].begin() + begin * out,
                             before_[p].begin() + (begin + count) * out));
      shape.list[p] = {device_w_[p].data(),
                       case_.bias ? device_bias_[p].data() : nullptr,
                       outs.back().data(), out, case_.add};
    }
    const Array<float> scratch(cuda::MatMulScratch(shape, plan));
    cuda::MatMul(x.data(), type_, shape, plan, scratch.data(), kStream);
    scratch.Read();  // checks its ends
    std::vector<float> all;
    for (const Array<float>& out : outs) {
      const std::vector<float> values = out.Read();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  std::vector<double> Oracle() const {
    const std::vector<float> x = Rounded(x_, type_);
    std::vector<double> want;
    for (size_t p = 0; p < case_.out.size(); ++p) {
      const std::vector<float> w = Rounded(w_[p], type_);
      for (int r = 0; r < case_.rows; ++r) {
        for (int o = 0; o < case_.out[p]; ++o) {
          double sum = case_.bias ? bias_[p][o] : 0.0;
          for (int i = 0; i < case_.in; ++i) {
            sum += double{x[r * case_.in + i]} * w[o * case_.in + i];
          }
          if (case_.add) sum += before_[p][r * case_.out[p] + o];
          want.push_back(sum);
        }
      }
    }
    return want;
  }

 private:
  const Case case_;
  const ComputeType type_;
  std::vector<float> x_;
  std::vector<std::vector<float>> w_, bias_, before_;
  std::vector<Tensor> device_w_;
  std::vector<Array<float>> device_bias_;
};

class MatMulKernelTest : public ::testing::TestWithParam<ComputeType> {};
INSTANTIATE_TEST_SUITE_P(Types, MatMulKernelTest,
                         ::testing::Values(ComputeType::kF32,
                                           ComputeType::kBF16),
                         [](const auto& info) {
                           return info.param == ComputeType::kF32 ? "F32"
                                                                  : "BF16";
                         });

TEST_P(MatMulKernelTest, OddSizes) {
  Random random(1);
  const std::vector<Case> cases = {
      {1, 1, {1}},
      {2, 5, {7}, true},
      {17, 13, {65}, false, true},
      {5, 257, {33}},
      {33, 64, {5, 1, 70}, true, true},  // several products of one x
      {7, 520, {17, 64}, true},          // two slices
      {3, 1032, {9}},                    // three
      {70, 72, {130}},
  };
  for (const Case& c : cases) {
    if (kSanitized && c.rows * c.in > 2600) continue;
    const Products products(c, GetParam(), random);
    const std::vector<double> want = products.Oracle();
    std::vector<float> first;
    for (const MatMulPlan& plan : Plans()) {
      const std::string what =
          absl::StrCat(c.rows, " rows, in ", c.in, NameOf(plan));
      const auto run = [&] { return products.Run(plan, 0, c.rows); };
      const bool orders = plan.tile != MatMulTile::k128 && c.rows < 34;
      const std::vector<float> got = orders ? InEveryOrder(what, run) : run();
      ExpectNmse(got, want, 4 * kEpsilon * kEpsilon * (c.in + 16), what);
      if (first.empty()) first = got;
      ExpectSame(got, first, what);
    }
  }
}

TEST_P(MatMulKernelTest, ARowsBytesDoNotDependOnTheOthers) {
  Random random(2);
  const Case c = {kSanitized ? 20 : 150, 576, {kSanitized ? 8 : 100}, true};
  const Products products(c, GetParam(), random);
  const std::vector<float> all =
      products.Run({MatMulTile::k128, false}, 0, c.rows);
  ExpectNmse(all, products.Oracle(), 4 * kEpsilon * kEpsilon * (c.in + 16),
             "all rows");
  const int out = c.out[0];
  for (int count : {1, 2, 7, 16, 33, 64, 100}) {
    for (int begin : {0, 3, 31}) {
      if (begin + count > c.rows) continue;
      if ((count > 16 || kSanitized) && begin == 3) continue;
      for (const MatMulPlan& plan : Plans()) {
        if (count > 16 && plan.tile == MatMulTile::k16) continue;
        if (kSanitized && plan.tile == MatMulTile::k128) continue;
        ExpectSame(
            products.Run(plan, begin, count),
            {all.begin() + begin * out, all.begin() + (begin + count) * out},
            absl::StrCat(count, " rows from ", begin, NameOf(plan)));
      }
    }
  }
}

TEST_P(MatMulKernelTest, NanAndInfStayInTheirRow) {
  Random random(3);
  const Case c = {9, 57, {33}};
  Products products(c, GetParam(), random);
  const MatMulPlan plan;
  const std::vector<float> clean = products.Run(plan, 0, 9);
  products.x()[3 * 57 + 56] = kNaN;
  products.x()[5 * 57] = kInf;
  const std::vector<float> got = products.Run(plan, 0, 9);
  for (int r = 0; r < 9; ++r) {
    for (int o = 0; o < 33; ++o) {
      const float value = got[r * 33 + o];
      if (r == 3) {
        EXPECT_TRUE(std::isnan(value)) << o;
      } else if (r == 5) {
        EXPECT_EQ(value, products.w(0)[o * 57] > 0 ? kInf : -kInf) << o;
      } else {
        EXPECT_EQ(value, clean[r * 33 + o]) << r << ", " << o;
      }
    }
  }
}

// The range of rows comes from the device; other rows of out stay.
TEST_P(MatMulKernelTest, ARangeOfRows) {
  Random random(4);
  const Case c = {40, kSanitized ? 520 : 576, {9, 70}, true};
  const Products products(c, GetParam(), random);
  const std::vector<float> all =
      products.Run({MatMulTile::k64, false}, 0, c.rows);
  for (const auto& [begin, end] :
       {std::pair{0, 40}, {3, 20}, {39, 40}, {7, 7}}) {
    const Array<int32_t> range(std::vector<int32_t>{begin, end});
    for (const MatMulPlan& plan : Plans()) {
      if (kSanitized && (begin != 3 || plan.tile == MatMulTile::k128)) continue;
      std::vector<float> want = all;
      for (size_t i = 0; i < want.size(); ++i) {
        const size_t row = i < 40 * 9 ? i / 9 : (i - 40 * 9) / 70;
        if (static_cast<int>(row) < begin || static_cast<int>(row) >= end) {
          want[i] = products.Before(i);
        }
      }
      ExpectSame(products.Run(plan, 0, c.rows, range.data()), want,
                 absl::StrCat("rows from ", begin, " to ", end, NameOf(plan)));
    }
  }
}

TEST(MatMulPlanTest, FewRowsAreSpreadAndManyAreNot) {
  MatMulShape shape;
  shape.in = 4096;
  shape.products = 2;
  shape.list[0].out_features = 4096;
  shape.list[1].out_features = 1024;
  EXPECT_EQ(shape.out_features(), 5120);
  for (const auto& [rows, tile, spread] : {std::tuple{1, MatMulTile::k16, true},
                                           {16, MatMulTile::k16, true},
                                           {17, MatMulTile::k64, true},
                                           {64, MatMulTile::k64, true},
                                           {2048, MatMulTile::k128, false}}) {
    shape.rows = rows;
    const MatMulPlan plan = cuda::PlanMatMul(shape, 132);
    EXPECT_EQ(plan.tile, tile) << rows;
    EXPECT_EQ(plan.spread, spread) << rows;
    EXPECT_EQ(cuda::MatMulScratch(shape, plan),
              spread ? int64_t{8} * rows * 5120 : 0);
  }
  shape.in = 512;  // one slice
  shape.rows = 1;
  EXPECT_FALSE(cuda::PlanMatMul(shape, 132).spread);
}

}  // namespace
}  // namespace qk::testing
