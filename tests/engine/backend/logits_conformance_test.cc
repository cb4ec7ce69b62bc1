// Compares ops on logits with naive loops in float64.
#include <algorithm>
#include <numeric>

#include "tests/engine/backend/conformance.h"

namespace qk::testing {
namespace {

class LogitsTest : public ConformanceTest {};
INSTANTIATE_TEST_SUITE_P(Backends, LogitsTest,
                         ::testing::ValuesIn(AllBackends()), BackendName);

// The tolerance of a log-sum of float32 exponentials, nats: a lane of the
// narrowest vectors sums 256 terms, which rounds like a walk of 16 steps.
constexpr double kSumTolerance = 2 * 16 * kEpsilon;

DeviceVector<LogitsRow> Reduce(Backend& backend,
                               const DeviceVector<float>& logits, int vocab,
                               const std::vector<int32_t>& targets) {
  DeviceVector<LogitsRow> out(backend, targets.size());
  backend.ReduceLogits(logits.data(), vocab, targets, out.data());
  return out;
}

const int kVocabs[] = {1, 5, 7, 11, 13, 33, 257, 1024, 1025, 49152};

double LogSumExp(const float* x, int n) {
  const double max = *std::max_element(x, x + n);
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += std::exp(x[i] - max);
  return max + std::log(sum);
}

TEST_P(LogitsTest, ReduceLogits) {
  Random random(1);
  for (int vocab : kVocabs) {
    for (float scale : {0.0f, 3.0f, 50.0f}) {
      const int n = 5;
      std::vector<float> x = random.Normal(n * vocab, scale);
      for (int i = 0; i < vocab; ++i) x[vocab + i] += 4e4f;  // exp overflows
      const DeviceVector<float> logits(backend(), x);
      std::vector<int32_t> targets;
      for (int r = 0; r < n; ++r) targets.push_back(random.Below(vocab));
      targets[2] = -1;
      const std::vector<LogitsRow> rows =
          Reduce(backend(), logits, vocab, targets).Read();
      for (int r = 0; r < n; ++r) {
        const float* row = &x[r * vocab];
        const int top1 =
            static_cast<int>(std::max_element(row, row + vocab) - row);
        const double sum = LogSumExp(row, vocab);
        const double target = targets[r] < 0 ? 0 : row[targets[r]] - sum;
        EXPECT_EQ(rows[r].top1, top1) << vocab;  // ties: the first
        EXPECT_TRUE(std::abs(rows[r].log_sum_exp - sum) <= kSumTolerance)
            << vocab;
        EXPECT_TRUE(std::abs(rows[r].top1_logprob - (row[top1] - sum)) <=
                    kSumTolerance + kEpsilon * 2 * std::abs(row[top1] - sum));
        EXPECT_TRUE(std::abs(rows[r].target_logprob - target) <=
                    kSumTolerance + kEpsilon * 2 * std::abs(target));
      }
    }
  }
}

TEST_P(LogitsTest, RowsThatAreNotFiniteSaySo) {
  for (int vocab : {1, 7, 33, 1025}) {
    for (float bad : {kNaN, kInf}) {
      for (int at : {0, vocab / 2, vocab - 1}) {
        std::vector<float> x(2 * vocab, 0.0f);
        x[vocab + at] = bad;
        const DeviceVector<float> logits(backend(), x);
        DeviceVector<LogitsRow> reduced =
            Reduce(backend(), logits, vocab, {0, 0});
        DeviceVector<float> divergence(backend(), 2);
        backend().KlDivergence(logits.data(), logits.data(), vocab, 2,
                               reduced.data(), reduced.data(),
                               divergence.data());
        const std::vector<float> kl = divergence.Read();
        const std::vector<LogitsRow> rows = reduced.Read();
        EXPECT_TRUE(std::isfinite(rows[0].log_sum_exp));
        EXPECT_TRUE(std::isnan(rows[1].log_sum_exp));
        EXPECT_TRUE(std::isnan(rows[1].target_logprob));
        EXPECT_TRUE(std::isnan(rows[1].top1_logprob));
        EXPECT_TRUE(0 <= rows[1].top1 && rows[1].top1 < vocab);
        EXPECT_EQ(kl[0], 0.0f);
        EXPECT_TRUE(std::isnan(kl[1]));
      }
    }
  }
}

TEST_P(LogitsTest, TopLogits) {
  Random random(2);
  for (int vocab : kVocabs) {
    std::vector<float> x;  // many ties
    for (float v : random.Normal(vocab, 2.0f)) x.push_back(std::round(v));
    if (vocab > 5) x[3] = kNaN;
    std::vector<int32_t> order(vocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return !std::isnan(x[a]) && (std::isnan(x[b]) || x[a] > x[b]);
    });
    const DeviceVector<float> logits(backend(), x);
    const DeviceVector<LogitsRow> reduced(backend(),
                                          {LogitsRow{.log_sum_exp = 1.5}});
    for (int n : {1, 3, 10, vocab}) {
      if (n > vocab) continue;
      // Two jobs, of which the second wants the most likely id only.
      DeviceVector<TopLogit> out(backend(), n), one(backend(), 1);
      const TopJob job = {logits.data(), reduced.data(), n, out.data()};
      backend().TopLogits({job, {job.logits, job.reduced, 1, one.data()}},
                          vocab);
      const std::vector<TopLogit> top = out.Read();
      for (int i = 0; i < n; ++i) {
        ASSERT_EQ(top[i].id, order[i]) << vocab << ", place " << i;
        if (!std::isnan(x[order[i]])) {
          ASSERT_EQ(top[i].logprob, x[order[i]] - 1.5f);
        } else {
          ASSERT_TRUE(std::isnan(top[i].logprob));
        }
      }
      EXPECT_EQ(one.Read()[0].id, order[0]);
    }
  }
}

TEST_P(LogitsTest, KlDivergence) {
  Random random(3);
  for (int vocab : kVocabs) {
    for (float distance : {0.0f, 0.01f, 1.0f, 60.0f}) {
      const int n = 3;
      const std::vector<float> base = random.Normal(n * vocab, 3.0f);
      const std::vector<float> shift = random.Normal(n * vocab, distance);
      std::vector<float> arm = base;
      for (int i = 0; i < n * vocab; ++i) arm[i] += shift[i];
      const DeviceVector<float> b(backend(), base), a(backend(), arm);
      const std::vector<int32_t> no_targets(n, -1);
      const DeviceVector<LogitsRow> base_rows =
          Reduce(backend(), b, vocab, no_targets);
      const DeviceVector<LogitsRow> arm_rows =
          Reduce(backend(), a, vocab, no_targets);
      DeviceVector<float> divergence(backend(), n);
      backend().KlDivergence(b.data(), a.data(), vocab, n, base_rows.data(),
                             arm_rows.data(), divergence.data());
      const std::vector<float> kl = divergence.Read();
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

}  // namespace
}  // namespace qk::testing
