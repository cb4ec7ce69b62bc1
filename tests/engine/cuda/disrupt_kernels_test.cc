// Compares the kernels that choose dims and write them with the rules' plain
// meaning.
#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/base/philox.h"
#include "engine/cuda/kernels.h"
#include "tests/engine/cuda/kernel_testing.h"

namespace qk::testing {
namespace {

using Rule = DisruptionRule;
using Select = Rule::Select;
using Replace = Rule::Replace;

// A rule as kernels take it, with the device memory that it points to.
class DeviceRule {
 public:
  DeviceRule(const TensorRule& rule, const std::vector<HeadRole>& roles,
             const std::vector<HeadDim>& entries = {})
      : plain_(rule), roles_(roles), entries_(entries) {
    plain_.num_heads = static_cast<int>(roles.size());
    plain_.heads = roles_.data();
    plain_.num_entries = static_cast<int>(entries.size());
    plain_.entries = entries_.data();
  }
  const TensorRule& plain() const { return plain_; }

 private:
  TensorRule plain_;
  Array<HeadRole> roles_;
  Array<HeadDim> entries_;
};

// The choice among `squares`, without a kernel.
std::vector<uint8_t> Chosen(const TensorRule& rule, int step, int number,
                            const std::vector<HeadDim>& entries,
                            const std::vector<double>& squares) {
  const int dims = static_cast<int>(squares.size());
  std::vector<uint8_t> mask(dims, 0);
  std::vector<int> order(dims);
  std::iota(order.begin(), order.end(), 0);
  const bool largest = rule.select != Select::kBottomK;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    const bool x = std::isfinite(squares[a]), y = std::isfinite(squares[b]);
    if (x != y) return x;
    return x && (largest ? squares[a] > squares[b] : squares[a] < squares[b]);
  });
  if (rule.select == Select::kTopK || rule.select == Select::kBottomK) {
    for (int i = 0; i < rule.k; ++i) mask[order[i]] = 1;
  } else if (rule.select == Select::kRandomK) {
    std::vector<int> allowed(order.begin() + rule.exclude_top, order.end());
    std::sort(allowed.begin(), allowed.end());
    PhiloxStream random(rule.seed, RandomPurpose::kRandomK, rule.layer,
                        static_cast<uint32_t>(rule.tensor), number, step);
    for (int i = 0; i < rule.k; ++i) {
      std::swap(allowed[i], allowed[i + random.Below(allowed.size() - i)]);
      mask[allowed[i]] = 1;
    }
  } else if (rule.select == Select::kThreshold) {
    double sum = 0;
    int finite = 0;
    for (double x : squares) {
      if (!std::isfinite(x)) continue;
      sum += std::sqrt(x);
      ++finite;
    }
    for (int d = 0; finite > 0 && d < dims; ++d) {
      mask[d] = std::sqrt(squares[d]) > rule.lambda * (sum / finite);
    }
  } else {
    for (const HeadDim& e : entries) {
      if (e.head == number) mask[e.dim] = 1;
    }
  }
  for (int d = 0; d < dims; ++d) {
    if (!std::isfinite(squares[d])) mask[d] = 0;
  }
  return mask;
}

const Select kSelects[] = {Select::kTopK, Select::kBottomK, Select::kRandomK,
                           Select::kThreshold, Select::kExplicit};
const Replace kReplaces[] = {Replace::kPooledMean, Replace::kPerDimMean,
                             Replace::kZero, Replace::kScale};

TensorRule MakeRule(Select select, Replace replace, int k, int exclude_top) {
  TensorRule rule;
  rule.select = select;
  rule.replace = replace;
  rule.k = k;
  rule.exclude_top = exclude_top;
  rule.seed = 0x123456789ABCDEF;
  rule.lambda = 1.1;
  rule.factor = -1.75;
  rule.tensor = Qkv::kK;
  rule.layer = 3;
  return rule;
}

// Squares with ties and values that are not finite.
std::vector<double> Squares(int heads, int dims, Random& random) {
  std::vector<double> squares;
  for (float x : random.Normal(static_cast<size_t>(heads) * dims, 3.0f)) {
    squares.push_back(std::round(std::abs(x)));
  }
  squares[1] = std::nan("");
  squares[squares.size() / 2] = kInf;
  return squares;
}

TEST(DisruptKernelTest, SelectDims) {
  Random random(1);
  const std::vector<HeadRole> roles = {{true, 1}, {false, 9}, {true, 0}};
  for (int dims : {8, 33, kSanitized ? 40 : 150}) {
    const std::vector<HeadDim> entries = {
        {1, 2}, {0, 0}, {9, 1}, {0, dims - 1}};
    const std::vector<double> squares = Squares(3, dims, random);
    std::vector<double> sums;
    for (float x : random.Normal(3 * dims)) sums.push_back(x);
    const Array<double> device_squares(squares), device_sums(sums);
    for (Select select : kSelects) {
      for (Replace replace : kReplaces) {
        const int k = replace == Replace::kZero ? dims - 3 : 3;
        const DeviceRule rule(MakeRule(select, replace, k, 3), roles, entries);
        std::vector<float> values;
        const std::vector<uint8_t> mask = InEveryOrder("mask", [&] {
          const Array<uint8_t> to_mask(3 * dims);
          const Array<float> to_values(3 * dims);
          const SelectJob job = {
              .rule = rule.plain(),
              .step = 2,
              .from = {device_squares.data(), device_sums.data()},
              .count = 4,
              .head_dim = dims,
              .to = {to_mask.data(), to_values.data()}};
          cuda::SelectDims(&job, 1, kStream);
          values = to_values.Read();
          return to_mask.Read();
        });
        std::vector<uint8_t> want;
        std::vector<float> want_values;
        for (int h = 0; h < 3; ++h) {
          std::vector<uint8_t> own(dims, 0);
          if (roles[h].active) {
            own = Chosen(
                rule.plain(), 2, roles[h].id, entries,
                {squares.begin() + h * dims, squares.begin() + (h + 1) * dims});
          }
          double pooled = 0;
          int n = 0;
          for (int d = 0; d < dims; ++d) {
            if (own[d]) pooled += sums[h * dims + d] / 4;
            n += own[d];
          }
          for (int d = 0; d < dims; ++d) {
            double value = 0;
            if (replace == Replace::kPooledMean) value = pooled / n;
            if (replace == Replace::kPerDimMean) value = sums[h * dims + d] / 4;
            want_values.push_back(own[d] ? static_cast<float>(value) : 0.0f);
          }
          want.insert(want.end(), own.begin(), own.end());
        }
        const std::string what =
            absl::StrCat("select ", static_cast<int>(select), ", replace ",
                         static_cast<int>(replace), ", dims ", dims);
        ExpectSame(mask, want, what);
        ExpectSame(values, want_values, what);
      }
    }
  }
}

TEST(DisruptKernelTest, ReplaceDims) {
  Random random(2);
  const int rows = 70, width = 33;
  std::vector<float> x = random.Normal(rows * width);
  x[5] = kNaN;
  const std::vector<float> values = random.Normal(width);
  std::vector<uint8_t> mask(width, 0);
  for (int i = 0; i < width; i += 4) mask[i] = 1;
  const Array<uint8_t> device_mask(mask);
  const Array<float> device_values(values);
  const Array<int32_t> list(std::vector<int32_t>{3, 5, 36, 72});
  for (Replace replace : kReplaces) {
    std::vector<float> want = x;
    for (int row : {0, 2, 33, 69}) {
      for (int i = 0; i < width; i += 4) {
        float& v = want[row * width + i];
        v = replace == Replace::kScale ? static_cast<float>(v * -1.75)
                                       : values[i];
      }
    }
    const std::vector<float> got = InEveryOrder("replace", [&] {
      const Array<float> device(x);
      const ReplaceJob job = {{device.data(), rows, 3, 11, 7},
                              {-3, 4, list.data()},
                              {device_mask.data(), device_values.data()},
                              replace,
                              -1.75};
      cuda::ReplaceDims(&job, 1, kStream);
      return device.Read();
    });
    ExpectSame(got, want, absl::StrCat("replace ", static_cast<int>(replace)));
  }
}

// What a per_token rule makes of one row (heads, dims).
void RuleForToken(const TensorRule& rule, const std::vector<HeadRole>& roles,
                  const std::vector<HeadDim>& entries, int position, int dims,
                  float* x, uint8_t* mask, float* value) {
  std::vector<double> squares(dims, 0.0);
  const int n = static_cast<int>(roles.size()) * dims;
  for (int i = 0; i < n; ++i) {
    if (roles[i / dims].active) squares[i % dims] += double{x[i]} * x[i];
  }
  double sum = 0;
  int count = 0;
  const bool listed = rule.select == Select::kExplicit;
  for (int i = 0; i < n; ++i) {
    const HeadRole& role = roles[i / dims];
    mask[i] = role.active && Chosen(rule, 5, listed ? role.id : position,
                                    entries, squares)[i % dims];
    if (!mask[i]) continue;
    sum += x[i];
    ++count;
  }
  *value = rule.replace == Replace::kPooledMean && count > 0
               ? static_cast<float>(sum / count)
               : 0.0f;
  for (int i = 0; i < n; ++i) {
    if (!mask[i]) continue;
    x[i] = rule.replace == Replace::kScale ? static_cast<float>(x[i] * -1.75)
                                           : *value;
  }
}

TEST(DisruptKernelTest, DisruptPerToken) {
  Random random(3);
  const int rows = 9, dims = 13;
  const std::vector<HeadRole> roles = {
      {false, 0}, {true, 1}, {false, 2}, {true, 3}};
  const std::vector<HeadDim> entries = {{1, 2}, {2, 3}, {3, 12}};
  const int width = static_cast<int>(roles.size()) * dims;
  const std::vector<int32_t> chosen = {1, 2, 5, 8};
  const Array<int32_t> list(chosen);
  for (Select select : kSelects) {
    for (Replace replace :
         {Replace::kPooledMean, Replace::kZero, Replace::kScale}) {
      const DeviceRule rule(MakeRule(select, replace, 3, 2), roles, entries);
      std::vector<float> x = random.Normal(rows * width);
      x[2 * width + dims + 3] = kNaN;
      std::vector<uint8_t> mask;
      std::vector<float> values;
      const std::vector<float> got = InEveryOrder("tokens", [&] {
        const Array<float> device(x);
        const Array<uint8_t> to_mask(chosen.size() * width);
        const Array<float> to_values(chosen.size());
        const TokenRuleJob job = {rule.plain(),
                                  5,
                                  {device.data(), rows, 4, dims, 9},
                                  {0, 4, list.data()},
                                  {to_mask.data(), to_values.data()}};
        cuda::DisruptPerToken(&job, 1, kStream);
        mask = to_mask.Read();
        values = to_values.Read();
        return device.Read();
      });
      std::vector<uint8_t> want_mask(mask.size());
      std::vector<float> want_values(values.size());
      for (size_t i = 0; i < chosen.size(); ++i) {
        RuleForToken(rule.plain(), roles, entries, 9 + chosen[i], dims,
                     &x[chosen[i] * width], &want_mask[i * width],
                     &want_values[i]);
      }
      const std::string what =
          absl::StrCat("select ", static_cast<int>(select), ", replace ",
                       static_cast<int>(replace));
      ExpectSame(mask, want_mask, what);
      ExpectSame(values, want_values, what);
      ExpectSame(got, x, what);
    }
  }
}

}  // namespace
}  // namespace qk::testing
