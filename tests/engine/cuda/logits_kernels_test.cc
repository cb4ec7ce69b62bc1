// Compares the kernels of logits and of state-space mixers with loops in
// float64.
#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/cuda/kernels.h"
#include "tests/engine/cuda/kernel_testing.h"

namespace qk::testing {
namespace {

// Of a log-sum of float32 exponentials, nats.
constexpr double kSumTolerance = 2 * 16 * kEpsilon;

std::vector<int> Vocabs() {
  std::vector<int> vocabs = {1, 5, 33, 513, 1025};
  if (!kSanitized) vocabs.push_back(49152);
  return vocabs;
}

double LogSumExp(const float* x, int n) {
  const double max = *std::max_element(x, x + n);
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += std::exp(x[i] - max);
  return max + std::log(sum);
}

// LogitsRow has padding: its fields, one after another.
std::vector<double> Fields(const Array<LogitsRow>& rows) {
  std::vector<double> fields;
  for (const LogitsRow& row : rows.Read()) {
    fields.insert(fields.end(), {row.target_logprob, double(row.top1),
                                 row.top1_logprob, row.log_sum_exp});
  }
  return fields;
}

Array<LogitsRow> Reduce(const Array<float>& logits, int vocab,
                        const std::vector<int32_t>& targets) {
  const Array<int32_t> wanted(targets);
  Array<LogitsRow> out(targets.size());
  cuda::ReduceLogits(logits.data(), vocab, static_cast<int>(targets.size()),
                     wanted.data(), out.data(), kStream);
  return out;
}

TEST(LogitsKernelTest, ReduceLogits) {
  Random random(1);
  for (int vocab : Vocabs()) {
    for (float scale : {0.0f, 3.0f, 50.0f}) {
      const int n = 3;
      std::vector<float> x = random.Normal(n * vocab, scale);
      for (int i = 0; i < vocab; ++i) x[vocab + i] += 4e4f;  // exp overflows
      if (scale == 0) x[0] = -0.0f;                          // a tie with 0
      const Array<float> logits(x);
      const std::vector<int32_t> targets = {random.Below(vocab),
                                            random.Below(vocab), -1};
      const std::vector<double> rows = InEveryOrder(
          "reduce", [&] { return Fields(Reduce(logits, vocab, targets)); });
      for (int r = 0; r < n; ++r) {
        const float* row = &x[r * vocab];
        const int top1 =
            static_cast<int>(std::max_element(row, row + vocab) - row);
        const double sum = LogSumExp(row, vocab);
        const double target = targets[r] < 0 ? 0 : row[targets[r]] - sum;
        const double top = row[top1] - sum;
        const double* got = &rows[r * 4];
        EXPECT_TRUE(std::abs(got[0] - target) <=
                    kSumTolerance + kEpsilon * 2 * std::abs(target));
        EXPECT_EQ(got[1], top1) << vocab;  // ties: the first
        EXPECT_TRUE(std::abs(got[2] - top) <=
                    kSumTolerance + kEpsilon * 2 * std::abs(top));
        EXPECT_TRUE(std::abs(got[3] - sum) <= kSumTolerance) << vocab;
      }
    }
  }
}

TEST(LogitsKernelTest, RowsThatAreNotFiniteSaySo) {
  for (int vocab : {1, 7, 1025}) {
    for (float bad : {kNaN, kInf, -kInf}) {
      for (int at : {0, vocab / 2, vocab - 1}) {
        std::vector<float> x(2 * vocab, 0.0f);
        x[vocab + at] = bad;
        const Array<float> logits(x);
        const Array<LogitsRow> reduced = Reduce(logits, vocab, {0, 0});
        const Array<float> kl(2);
        cuda::KlDivergence(logits.data(), logits.data(), vocab, 2,
                           reduced.data(), reduced.data(), kl.data(), kStream);
        const std::vector<LogitsRow> rows = reduced.Read();
        EXPECT_TRUE(rows[0].finite());
        EXPECT_TRUE(std::isnan(rows[1].log_sum_exp));
        EXPECT_TRUE(std::isnan(rows[1].target_logprob));
        EXPECT_TRUE(std::isnan(rows[1].top1_logprob));
        EXPECT_TRUE(0 <= rows[1].top1 && rows[1].top1 < vocab);
        EXPECT_EQ(kl.Read()[0], 0.0f);
        EXPECT_TRUE(std::isnan(kl.Read()[1]));
      }
    }
  }
}

TEST(LogitsKernelTest, TopLogits) {
  Random random(2);
  for (int vocab : {1, 5, 33, kSanitized ? 40 : 700}) {
    const int count = 3;
    std::vector<float> x;  // many ties
    for (float v : random.Normal(count * vocab, 2.0f)) {
      x.push_back(std::round(v));
    }
    if (vocab > 5) x[2 * vocab + 3] = kNaN;
    const Array<float> logits(x);
    const Array<LogitsRow> reduced(
        std::vector<LogitsRow>(count, LogitsRow{.log_sum_exp = 1.5}));
    const std::vector<int32_t> rows = {2, 0};
    for (int n : {1, 3, vocab}) {
      if (n > vocab) continue;
      const std::vector<TopLogit> got = InEveryOrder("top", [&] {
        const Array<TopLogit> out(2 * n);
        std::vector<TopJob> jobs;
        for (int r = 0; r < 2; ++r) {
          jobs.push_back({logits.data() + rows[r] * vocab,
                          reduced.data() + rows[r], n, out.data() + r * n});
        }
        cuda::TopLogits(jobs.data(), 2, vocab, kStream);
        return out.Read();
      });
      for (int r = 0; r < 2; ++r) {
        const float* row = &x[rows[r] * vocab];
        std::vector<int32_t> order(vocab);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
          return !std::isnan(row[a]) && (std::isnan(row[b]) || row[a] > row[b]);
        });
        for (int i = 0; i < n; ++i) {
          const TopLogit& top = got[r * n + i];
          ASSERT_EQ(top.id, order[i]) << vocab << ", place " << i;
          const float want = row[order[i]] - 1.5f;
          ASSERT_TRUE(std::isnan(want) ? std::isnan(top.logprob)
                                       : top.logprob == want);
        }
      }
    }
  }
}

TEST(LogitsKernelTest, KlDivergence) {
  Random random(3);
  for (int vocab : Vocabs()) {
    for (float distance : {0.0f, 0.01f, 1.0f, 60.0f}) {
      const int n = 2;
      const std::vector<float> base = random.Normal(n * vocab, 3.0f);
      const std::vector<float> shift = random.Normal(n * vocab, distance);
      std::vector<float> arm = base;
      for (int i = 0; i < n * vocab; ++i) arm[i] += shift[i];
      const Array<float> b(base), a(arm);
      const Array<LogitsRow> base_rows = Reduce(b, vocab, {-1, -1});
      const Array<LogitsRow> arm_rows = Reduce(a, vocab, {-1, -1});
      const std::vector<float> kl = InEveryOrder("kl", [&] {
        const Array<float> out(n);
        cuda::KlDivergence(b.data(), a.data(), vocab, n, base_rows.data(),
                           arm_rows.data(), out.data(), kStream);
        return out.Read();
      });
      for (int r = 0; r < n; ++r) {
        const float *pb = &base[r * vocab], *pa = &arm[r * vocab];
        const double sum_b = LogSumExp(pb, vocab), sum_a = LogSumExp(pa, vocab);
        double want = 0;
        for (int i = 0; i < vocab; ++i) {
          want += std::exp(pb[i] - sum_b) * ((pb[i] - sum_b) - (pa[i] - sum_a));
        }
        EXPECT_TRUE(std::abs(kl[r] - want) <= 2 * kSumTolerance + 1e-6 * want)
            << vocab << ", distance " << distance << ": got " << kl[r]
            << ", want " << want;
        EXPECT_GE(kl[r], 0.0f);
        if (distance == 0) {
          EXPECT_EQ(kl[r], 0.0f);
        }
      }
    }
  }
}

double Silu(double x) { return x / (1 + std::exp(-x)); }

// Rows of several sequences, and where each begins.
const std::vector<int> kRowsOf = {1, 7, 20};
const int kAllRows = 28;

// The results of sequences in one launch, then their states.
template <typename Op>
std::vector<float> RunMixer(const std::string& what,
                            const std::vector<float>& x,
                            const std::vector<std::vector<float>>& states,
                            const Op& op) {
  return InEveryOrder(what, [&] {
    const Array<float> device(x);
    std::vector<Array<float>> kept;
    std::vector<cuda::MambaRows> jobs;
    int row = 0;
    for (size_t i = 0; i < states.size(); ++i) {
      kept.emplace_back(states[i]);
      jobs.push_back({row, kRowsOf[i], kept.back().data()});
      row += kRowsOf[i];
    }
    op(device.data(), jobs.data(), static_cast<int>(jobs.size()));
    std::vector<float> all = device.Read();
    for (const Array<float>& state : kept) {
      const std::vector<float> values = state.Read();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  });
}

TEST(MambaKernelTest, CausalConvSilu) {
  Random random(4);
  for (int kernel : {1, 2, 4, 5}) {
    for (int inner : {1, 13, 130}) {
      const std::vector<float> x = random.Normal(kAllRows * inner);
      const std::vector<float> weight = random.Normal(inner * kernel);
      const std::vector<float> bias = random.Normal(inner);
      const bool with_bias = kernel != 2;
      std::vector<std::vector<float>> states;
      for (size_t i = 0; i < kRowsOf.size(); ++i) {
        states.push_back(random.Normal(inner * (kernel - 1)));
      }
      std::vector<double> want(kAllRows * inner), after;
      int first = 0;
      for (size_t i = 0; i < kRowsOf.size(); ++i) {
        for (int c = 0; c < inner; ++c) {
          std::vector<float> line(states[i].begin() + c * (kernel - 1),
                                  states[i].begin() + (c + 1) * (kernel - 1));
          for (int r = 0; r < kRowsOf[i]; ++r) {
            line.push_back(x[(first + r) * inner + c]);
          }
          for (int r = 0; r < kRowsOf[i]; ++r) {
            double sum = with_bias ? bias[c] : 0;
            for (int j = 0; j < kernel; ++j) {
              sum += double{weight[c * kernel + j]} * line[r + j];
            }
            want[(first + r) * inner + c] = Silu(sum);
          }
          after.insert(after.end(), line.end() - (kernel - 1), line.end());
        }
        first += kRowsOf[i];
      }
      want.insert(want.end(), after.begin(), after.end());
      const Array<float> w(weight), b(bias);
      const std::string what =
          absl::StrCat("kernel ", kernel, ", inner ", inner);
      const std::vector<float> got =
          RunMixer(what, x, states,
                   [&](float* data, const cuda::MambaRows* jobs, int count) {
                     cuda::CausalConvSilu(data, inner, kernel, w.data(),
                                          with_bias ? b.data() : nullptr, jobs,
                                          count, kStream);
                   });
      ExpectNmse(got, want, 1e-12, what);
    }
  }
}

TEST(MambaKernelTest, SelectiveScan) {
  Random random(5);
  for (int states : {1, 5, 16, 17, 70}) {
    const int inner = 21;
    const std::vector<float> x = random.Normal(kAllRows * inner),
                             dt = random.Normal(kAllRows * inner, 2.0f),
                             gate = random.Normal(kAllRows * inner),
                             b = random.Normal(kAllRows * states),
                             c = random.Normal(kAllRows * states),
                             a_log = random.Normal(inner * states),
                             d = random.Normal(inner);
    std::vector<std::vector<float>> kept;
    for (size_t i = 0; i < kRowsOf.size(); ++i) {
      kept.push_back(random.Normal(inner * states));
    }
    std::vector<double> want(kAllRows * inner), after;
    int first = 0;
    for (size_t i = 0; i < kRowsOf.size(); ++i) {
      std::vector<double> h(kept[i].begin(), kept[i].end());
      for (int r = first; r < first + kRowsOf[i]; ++r) {
        for (int e = 0; e < inner; ++e) {
          const int at = r * inner + e;
          const double step = std::log1p(std::exp(double{dt[at]}));
          double y = 0;
          for (int s = 0; s < states; ++s) {
            double& state = h[e * states + s];
            const double a = -std::exp(double{a_log[e * states + s]});
            state =
                std::exp(a * step) * state + step * b[r * states + s] * x[at];
            y += state * c[r * states + s];
          }
          want[at] = (y + double{d[e]} * x[at]) * Silu(gate[at]);
        }
      }
      after.insert(after.end(), h.begin(), h.end());
      first += kRowsOf[i];
    }
    want.insert(want.end(), after.begin(), after.end());
    const Array<float> in_dt(dt), in_gate(gate), in_b(b), in_c(c), in_a(a_log),
        in_d(d);
    const ScanInputs in = {in_dt.data(),   in_b.data(), in_c.data(),
                           in_gate.data(), in_a.data(), in_d.data()};
    const std::string what = absl::StrCat("states ", states);
    const std::vector<float> got = RunMixer(
        what, x, kept,
        [&](float* data, const cuda::MambaRows* jobs, int count) {
          cuda::SelectiveScan(in, inner, states, jobs, count, data, kStream);
        });
    ExpectNmse(got, want, 1e-11, what);
  }
}

}  // namespace
}  // namespace qk::testing
