// Compares the ops of hooks and disruption with naive loops in float64.
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

// Some rows, and the same rows in the form that an op takes.
struct Rows {
  // A range.
  Rows(Backend& backend, int begin, int count)
      : chosen(count), list(backend, 0), set{begin, count} {
    std::iota(chosen.begin(), chosen.end(), begin);
  }
  // A list of positions, which are the rows plus `shift`.
  Rows(Backend& backend, const std::vector<int>& rows, int shift)
      : chosen(rows),
        list(backend, Shifted(rows, shift)),
        set{-shift, static_cast<int>(rows.size()), list.data()} {}

  static std::vector<int32_t> Shifted(std::vector<int32_t> rows, int shift) {
    for (int32_t& row : rows) row += shift;
    return rows;
  }

  std::vector<int> chosen;
  DeviceVector<int32_t> list;
  RowSet set;
};

// Returns all rows, all but the first, every third, only the last, and none.
std::vector<Rows> RowChoices(Backend& backend, int rows) {
  std::vector<int> third;
  for (int i = 0; i < rows; i += 3) third.push_back(i);
  std::vector<Rows> choices;
  choices.emplace_back(backend, 0, rows);
  choices.emplace_back(backend, 1, rows - 1);
  choices.emplace_back(backend, third, 0);
  choices.emplace_back(backend, std::vector<int>{rows - 1}, 70);
  choices.emplace_back(backend, std::vector<int>{}, 0);
  return choices;
}

// Some heads, and the same heads in the form that an op takes.
struct Heads {
  // The first `count` heads.
  Heads(Backend& backend, int count)
      : chosen(count), list(backend, 0), set{count} {
    std::iota(chosen.begin(), chosen.end(), 0);
  }
  Heads(Backend& backend, const std::vector<int>& heads)
      : chosen(heads),
        list(backend, heads),
        set{static_cast<int>(heads.size()), list.data()} {}

  std::vector<int> chosen;
  DeviceVector<int32_t> list;
  HeadSet set;
};

std::vector<Heads> HeadChoices(Backend& backend, int heads) {
  std::vector<Heads> choices;
  choices.emplace_back(backend, heads);
  choices.emplace_back(backend, std::vector<int>{heads - 1});
  if (heads > 2) {
    choices.emplace_back(backend, std::vector<int>{0, heads - 1});
  }
  return choices;
}

TEST_P(HooksTest, AddMoments) {
  Random random(1);
  for (const Shape& s : kShapes) {
    const std::vector<float> x = random.Normal(s.rows * s.width(), 3.0f);
    const DeviceVector<float> device(backend(), x);
    for (const Rows& rows : RowChoices(backend(), s.rows)) {
      for (bool with_sums : {true, false}) {
        for (bool from_zero : {true, false}) {
          const double start = from_zero ? 0 : 0.25;
          const std::vector<double> before(s.width(), 0.25);
          DeviceVector<double> squares(backend(), before),
              sums(backend(), before);
          backend().AddMoments(
              {MomentsJob{View(device, s),
                          rows.set,
                          {squares.data(), with_sums ? sums.data() : nullptr},
                          from_zero}});
          const std::vector<double> got = squares.Read(),
                                    got_sums = sums.Read();
          for (int i = 0; i < s.width(); ++i) {
            double square = start, sum = start, size = start;
            for (int row : rows.chosen) {
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
}

// An op over several jobs gives the same bytes as one op for each.
TEST_P(HooksTest, JobsAreIndependent) {
  Random random(6);
  std::vector<DeviceVector<float>> inputs;
  std::vector<DeviceVector<double>> one, all;
  std::vector<DeviceVector<float>> norms, token_norms, copies, expanded;
  std::vector<DeviceVector<float>> norms_of_all, token_norms_of_all,
      copies_of_all, expanded_of_all;
  std::vector<MomentsJob> moments;
  std::vector<NormsJob> norm_jobs;
  std::vector<TokenNormsJob> token_jobs;
  std::vector<CopyOutJob> copy_jobs;
  std::vector<ExpandJob> expand_jobs;
  for (const Shape& s : kShapes) {
    const size_t size = s.rows * s.width();
    inputs.emplace_back(backend(), random.Normal(size));
    const HeadRows x = View(inputs.back(), s);
    const RowSet rows = {0, s.rows};
    const HeadSet heads = {s.heads};
    for (auto* to : {&one, &all}) to->emplace_back(backend(), s.width());
    for (auto* to : {&norms, &norms_of_all}) {
      to->emplace_back(backend(), s.width());
    }
    for (auto* to : {&token_norms, &token_norms_of_all}) {
      to->emplace_back(backend(), s.rows * s.heads);
    }
    for (auto* to : {&copies, &copies_of_all})
      to->emplace_back(backend(), size);
    for (auto* to : {&expanded, &expanded_of_all}) {
      to->emplace_back(backend(), 2 * size);
    }
    backend().AddMoments(
        {MomentsJob{x, rows, {one.back().data(), nullptr}, true}});
    moments.push_back({x, rows, {all.back().data(), nullptr}, true});
    backend().FinishNorms(
        {NormsJob{one.back().data(), heads, s.head_dim, norms.back().data()}});
    norm_jobs.push_back(
        {all.back().data(), heads, s.head_dim, norms_of_all.back().data()});
    backend().TokenNorms(
        {TokenNormsJob{x, rows, heads, token_norms.back().data()}});
    token_jobs.push_back({x, rows, heads, token_norms_of_all.back().data()});
    backend().CopyOut(
        {CopyOutJob{x, rows, heads, RawDtype::kF32, copies.back().data()}});
    copy_jobs.push_back(
        {x, rows, heads, RawDtype::kF32, copies_of_all.back().data()});
    backend().ExpandHeads({ExpandJob{x, 2 * s.heads, expanded.back().data()}});
    expand_jobs.push_back({x, 2 * s.heads, expanded_of_all.back().data()});
  }
  backend().AddMoments(moments);
  backend().FinishNorms(norm_jobs);
  backend().TokenNorms(token_jobs);
  backend().CopyOut(copy_jobs);
  backend().ExpandHeads(expand_jobs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    ExpectSame(all[i].Read(), one[i].Read(), "moments");
    ExpectSame(norms_of_all[i].Read(), norms[i].Read(), "norms");
    ExpectSame(token_norms_of_all[i].Read(), token_norms[i].Read(), "tokens");
    ExpectSame(copies_of_all[i].Read(), copies[i].Read(), "copies");
    ExpectSame(expanded_of_all[i].Read(), expanded[i].Read(), "expanded");
  }
}

// Moments are summed in blocks of 64 absolute positions: a prompt that is split
// at any of their edges gives the same bytes.
TEST_P(HooksTest, MomentsDoNotDependOnTheSplitOfAPrompt) {
  Random random(2);
  const Shape whole = {200, 3, 24, 10};
  const DeviceVector<float> x(backend(), random.Normal(200 * whole.width()));
  const std::vector<double> zeros(whole.width(), 0.0);
  DeviceVector<double> squares(backend(), zeros), sums(backend(), zeros);
  backend().AddMoments(
      {MomentsJob{View(x, whole), {0, 200}, {squares.data(), sums.data()}}});
  DeviceVector<double> parts(backend(), zeros), part_sums(backend(), zeros);
  for (const auto& [begin, end] :
       {std::pair<int, int>{0, 54}, {54, 182}, {182, 200}}) {
    const HeadRows part = {x.data() + begin * whole.width(), end - begin, 3, 24,
                           10 + begin};
    backend().AddMoments(
        {MomentsJob{part, {0, end - begin}, {parts.data(), part_sums.data()}}});
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
  backend().AddMoments(
      {MomentsJob{View(device, s), {0, 3}, {squares.data(), nullptr}}});
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
    std::vector<double> squares;
    for (int i = 0; i < s.width(); ++i) squares.push_back(x[i] * 1e19 * i);
    squares[0] = std::nan("");
    const DeviceVector<double> from(backend(), squares);
    for (const Heads& heads : HeadChoices(backend(), s.heads)) {
      for (const Rows& rows : RowChoices(backend(), s.rows)) {
        std::vector<double> want;
        for (int row : rows.chosen) {
          for (int head : heads.chosen) {
            double sum = 0;
            for (int d = 0; d < s.head_dim; ++d) {
              const double v = x[row * s.width() + head * s.head_dim + d];
              sum += v * v;
            }
            want.push_back(std::sqrt(sum));
          }
        }
        DeviceVector<float> out(backend(), want.size());
        backend().TokenNorms(
            {TokenNormsJob{View(device, s), rows.set, heads.set, out.data()}});
        ExpectEach(out.Read(), want, 2 * kEpsilon, 0, "token norms");
      }
      std::vector<double> want;
      for (int head : heads.chosen) {
        for (int d = 0; d < s.head_dim; ++d) {
          want.push_back(std::sqrt(squares[head * s.head_dim + d]));
        }
      }
      DeviceVector<float> out(backend(), want.size());
      backend().FinishNorms(
          {NormsJob{from.data(), heads.set, s.head_dim, out.data()}});
      ExpectEach(out.Read(), want, 2 * kEpsilon, 0, "norms");
    }
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
      backend().ExpandHeads(
          {ExpandJob{View(device, s), s.heads * group, out.data()}});
      ExpectSame(out.Read(), want, absl::StrCat("group ", group));
    }
  }
}

TEST_P(HooksTest, CopyOutChoosesRowsAndHeads) {
  Random random(5);
  for (const Shape& s : kShapes) {
    const std::vector<float> x = random.Normal(s.rows * s.width());
    const DeviceVector<float> device(backend(), x);
    for (const Heads& heads : HeadChoices(backend(), s.heads)) {
      for (const Rows& rows : RowChoices(backend(), s.rows)) {
        std::vector<float> want;
        for (int row : rows.chosen) {
          for (int head : heads.chosen) {
            const auto from = x.begin() + row * s.width() + head * s.head_dim;
            want.insert(want.end(), from, from + s.head_dim);
          }
        }
        DeviceVector<float> out(backend(), want.size());
        backend().CopyOut({CopyOutJob{View(device, s), rows.set, heads.set,
                                      RawDtype::kF32, out.data()}});
        ExpectSame(out.Read(), want, "f32");
      }
    }
  }
}

// Returns the value of a 16-bit float with `mantissa` bits of mantissa, by
// definition. A code from infinity on has the value 2^(max + 1), which decides
// the rounding to infinity.
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
    backend().CopyOut({CopyOutJob{
        {device.data(), 1, 1, n, 0}, {0, 1}, {1}, dtype, out.data()}});
    ExpectSame(out.Read(), want, dtype == RawDtype::kF16 ? "f16" : "bf16");

    const DeviceVector<float> nan(backend(), std::vector<float>{kNaN, -kNaN});
    DeviceVector<uint16_t> nan_out(backend(), 2);
    backend().CopyOut({CopyOutJob{
        {nan.data(), 1, 1, 2, 0}, {0, 1}, {1}, dtype, nan_out.data()}});
    for (uint16_t code : nan_out.Read()) EXPECT_GT(code & 0x7fff, infinity);
  }
}

}  // namespace
}  // namespace qk::testing
