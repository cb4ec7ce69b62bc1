// Compares the ops that choose dims and write them with naive loops in float64.
// statistics_test and disruption_test also test what each kind of rule chooses.
#include <algorithm>
#include <numeric>

#include "tests/engine/backend/device_rule.h"

namespace qk::testing {
namespace {

using Rule = DisruptionRule;

class DisruptTest : public ConformanceTest {};
INSTANTIATE_TEST_SUITE_P(Backends, DisruptTest,
                         ::testing::ValuesIn(AllBackends()), BackendName);

TEST_P(DisruptTest, SelectDimsTiesNanAndInf) {
  const double nan = std::nan(""), inf = kInf;
  const std::vector<double> squares = {4, 9, 9, nan, 1, inf, 9, 1};
  const std::vector<double> sums(8, 0.0);
  Rule rule;
  rule.k = 2;
  const auto mask = [&] {
    return Select(backend(), rule, {{true, 0}}, squares, sums, 1).mask;
  };
  ExpectSame(mask(), {0, 1, 1, 0, 0, 0, 0, 0}, "top");
  rule.select = Rule::Select::kBottomK;
  ExpectSame(mask(), {0, 0, 0, 0, 1, 0, 0, 1}, "bottom");
  rule.k = 8;
  ExpectSame(mask(), {1, 1, 1, 0, 1, 0, 1, 1}, "all");
  rule.k = 0;
  ExpectSame(mask(), {0, 0, 0, 0, 0, 0, 0, 0}, "none");
  rule.select = Rule::Select::kThreshold;
  rule.lambda = 1.0;  // mean of the finite norms: 13 / 6
  ExpectSame(mask(), {0, 1, 1, 0, 0, 0, 1, 0}, "threshold");
  rule.select = Rule::Select::kExplicit;
  rule.entries = {{0, 3}, {0, 4}, {1, 0}};
  ExpectSame(mask(), {0, 0, 0, 0, 1, 0, 0, 0}, "explicit");
}

TEST_P(DisruptTest, SelectDimsValues) {
  const std::vector<double> squares = {1, 9, 4, 1, 9, 4, 1, 9, 4};
  const std::vector<double> sums = {1, 2, 3, 10, 20, 30, 5, 6, 7};
  // Head 1 is not in the rule; head 2 has number 0 in it.
  const std::vector<HeadRole> roles = {{true, 1}, {false, 9}, {true, 0}};
  Rule rule;
  rule.k = 2;
  const std::vector<uint8_t> mask = {0, 1, 1, 0, 0, 0, 0, 1, 1};
  Chosen got = Select(backend(), rule, roles, squares, sums, 4);
  ExpectSame(got.mask, mask, "mask");
  ExpectSame(got.values, {0, 0.625f, 0.625f, 0, 0, 0, 0, 1.625f, 1.625f},
             "pooled mean");
  rule.replace = Rule::Replace::kPerDimMean;
  got = Select(backend(), rule, roles, squares, sums, 4);
  ExpectSame(got.values, {0, 0.5f, 0.75f, 0, 0, 0, 0, 1.5f, 1.75f},
             "per-dim mean");
  rule.replace = Rule::Replace::kZero;
  got = Select(backend(), rule, roles, squares, sums, 4);
  ExpectSame(got.values, std::vector<float>(9, 0.0f), "zero");
  rule.select = Rule::Select::kExplicit;
  rule.entries = {{1, 2}, {0, 0}, {9, 1}};
  got = Select(backend(), rule, roles, squares, sums, 4);
  ExpectSame(got.mask, {0, 0, 1, 0, 0, 0, 1, 0, 0}, "explicit");
}

TEST_P(DisruptTest, RandomChoicesGoByTheHeadsNumber) {
  Random random(1);
  std::vector<double> squares;
  for (float x : random.Normal(64)) squares.push_back(x * x);
  std::vector<double> twice = squares;
  twice.insert(twice.end(), squares.begin(), squares.end());
  Rule rule;
  rule.select = Rule::Select::kRandomK;
  rule.k = 7;
  rule.exclude_top = 10;
  rule.seed = 5;
  const auto mask = [&](const std::vector<HeadRole>& roles,
                        const std::vector<double>& s) {
    return Select(backend(), rule, roles, s, std::vector<double>(s.size(), 0.0),
                  1)
        .mask;
  };
  const std::vector<uint8_t> one = mask({{true, 3}}, squares);
  EXPECT_EQ(std::accumulate(one.begin(), one.end(), 0), 7);
  const std::vector<uint8_t> two = mask({{true, 2}, {true, 3}}, twice);
  ExpectSame({two.begin() + 64, two.end()}, one, "head 3");
  EXPECT_NE(std::vector<uint8_t>(two.begin(), two.begin() + 64), one);
  std::vector<double> sorted = squares;
  std::sort(sorted.rbegin(), sorted.rend());
  for (int d = 0; d < 64; ++d) {
    if (one[d]) {
      EXPECT_LT(squares[d], sorted[9]);
    }
  }
}

TEST_P(DisruptTest, ReplaceDims) {
  Random random(2);
  const int rows = 70, width = 33;
  std::vector<float> x = random.Normal(rows * width);
  x[5] = kNaN;
  const std::vector<float> values = random.Normal(width);
  std::vector<uint8_t> mask(width, 0);
  for (int i = 0; i < width; i += 4) mask[i] = 1;
  const DeviceVector<uint8_t> device_mask(backend(), mask);
  DeviceVector<float> device_values(backend(), values);
  const std::vector<int> chosen = {0, 2, 33, 69};
  const DeviceVector<int32_t> list(backend(), {3, 5, 36, 72});
  for (auto replace : {Rule::Replace::kPooledMean, Rule::Replace::kPerDimMean,
                       Rule::Replace::kZero, Rule::Replace::kScale}) {
    Rule rule;
    rule.replace = replace;
    rule.factor = -1.75;
    std::vector<float> want = x;
    for (int row : chosen) {
      for (int i = 0; i < width; ++i) {
        if (!mask[i]) continue;
        float& v = want[row * width + i];
        v = replace == Rule::Replace::kScale
                ? static_cast<float>(v * rule.factor)
                : values[i];
      }
    }
    DeviceVector<float> device(backend(), x);
    backend().ReplaceDims(
        {ReplaceJob{.x = {device.data(), rows, 3, 11, 7},
                    .rows = {-3, 4, list.data()},
                    .choice = {device_mask.data(), device_values.data()},
                    .replace = rule.replace,
                    .factor = rule.factor}});
    ExpectSame(device.Read(), want,
               absl::StrCat("replace ", static_cast<int>(replace)));
  }
}

// Applies a per_token rule that takes the `k` largest norms over the active
// heads to one row (heads, dims).
void TopForToken(const Rule& rule, const std::vector<HeadRole>& roles, int dims,
                 float* x, uint8_t* mask, float* value) {
  std::vector<double> squares(dims, 0.0);
  const int heads = static_cast<int>(roles.size());
  for (int i = 0; i < heads * dims; ++i) {
    if (roles[i / dims].active) squares[i % dims] += double{x[i]} * x[i];
  }
  std::vector<int> order(dims);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return squares[a] > squares[b]; });
  double sum = 0;
  int n = 0;
  std::fill_n(mask, heads * dims, 0);
  for (int h = 0; h < heads; ++h) {
    if (!roles[h].active) continue;
    for (int i = 0; i < rule.k; ++i) {
      mask[h * dims + order[i]] = 1;
      sum += x[h * dims + order[i]];
      ++n;
    }
  }
  *value = rule.replace == Rule::Replace::kPooledMean && n > 0
               ? static_cast<float>(sum / n)
               : 0.0f;
  for (int i = 0; i < heads * dims; ++i) {
    if (!mask[i]) continue;
    x[i] = rule.replace == Rule::Replace::kScale
               ? static_cast<float>(x[i] * rule.factor)
               : *value;
  }
}

TEST_P(DisruptTest, DisruptPerToken) {
  Random random(3);
  const int rows = 50, heads = 4, dims = 13, width = heads * dims;
  for (const std::vector<HeadRole>& roles :
       {std::vector<HeadRole>{{true, 0}, {true, 1}, {true, 2}, {true, 3}},
        std::vector<HeadRole>{{false, 0}, {true, 1}, {false, 2}, {true, 3}}}) {
    for (auto replace : {Rule::Replace::kPooledMean, Rule::Replace::kZero,
                         Rule::Replace::kScale}) {
      for (int k : {0, 1, 3, 13}) {
        Rule rule;
        rule.axis = Rule::Axis::kPerToken;
        rule.replace = replace;
        rule.factor = 0.5;
        rule.k = k;
        std::vector<float> x = random.Normal(rows * width);
        DeviceVector<float> device(backend(), x);
        std::vector<int32_t> chosen;
        for (int i = 1; i < rows; i += 2) chosen.push_back(i);
        const DeviceVector<int32_t> list(backend(), chosen);
        DeviceVector<uint8_t> mask(backend(), chosen.size() * width);
        DeviceVector<float> values(backend(), chosen.size());
        const DeviceRule device_rule(backend(), rule, roles);
        backend().DisruptPerToken({TokenRuleJob{
            .rule = device_rule.plain(),
            .x = {device.data(), rows, heads, dims, 9},
            .rows = {0, static_cast<int>(chosen.size()), list.data()},
            .to = {mask.data(), values.data()}}});
        std::vector<uint8_t> want_mask(chosen.size() * width);
        std::vector<float> want_values(chosen.size());
        for (size_t i = 0; i < chosen.size(); ++i) {
          TopForToken(rule, roles, dims, &x[chosen[i] * width],
                      &want_mask[i * width], &want_values[i]);
        }
        ExpectSame(mask.Read(), want_mask, "mask");
        ExpectSame(values.Read(), want_values, "values");
        ExpectSame(device.Read(), x, "rows");
      }
    }
  }
}

TEST_P(DisruptTest, RandomChoicesPerTokenGoByPosition) {
  Random random(4);
  const int dims = 32;
  const std::vector<float> x = random.Normal(6 * dims);
  Rule rule;
  rule.axis = Rule::Axis::kPerToken;
  rule.select = Rule::Select::kRandomK;
  rule.k = 3;
  const DeviceRule device_rule(backend(), rule, {{true, 0}});
  const auto mask = [&](int begin, int rows) {
    DeviceVector<float> part(
        backend(), std::vector<float>(x.begin() + begin * dims,
                                      x.begin() + (begin + rows) * dims));
    DeviceVector<uint8_t> out(backend(), rows * dims);
    DeviceVector<float> values(backend(), rows);
    backend().DisruptPerToken(
        {TokenRuleJob{.rule = device_rule.plain(),
                      .x = {part.data(), rows, 1, dims, 40 + begin},
                      .rows = {0, rows},
                      .to = {out.data(), values.data()}}});
    return out.Read();
  };
  const std::vector<uint8_t> whole = mask(0, 6), tail = mask(4, 2);
  ExpectSame(tail, {whole.begin() + 4 * dims, whole.end()}, "positions 44, 45");
}

}  // namespace
}  // namespace qk::testing
