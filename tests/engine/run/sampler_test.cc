#include "engine/run/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace qk {
namespace {

constexpr int kDraws = 20000;
const std::vector<float> kLogits = {0.5f, -1.0f, 2.0f,  0.0f,
                                    1.5f, -3.0f, 0.25f, 2.0f};

std::vector<int> Draw(const std::vector<float>& logits,
                      const SamplingSpec& sampling) {
  std::vector<int> counts(logits.size(), 0);
  for (int step = 0; step < kDraws; ++step) {
    ++counts.at(Sample(logits, sampling, step));
  }
  return counts;
}

// Compares counts with softmax(logits / temperature) over the `kept` ids; no
// other id may come.
void ExpectDistribution(const std::vector<float>& logits,
                        const std::set<int>& kept,
                        const SamplingSpec& sampling) {
  const std::vector<int> counts = Draw(logits, sampling);
  double max = -std::numeric_limits<double>::infinity();
  for (int id : kept) max = std::max<double>(max, logits[id]);
  const auto weight = [&](int id) {
    return std::exp((logits[id] - max) / sampling.temperature);
  };
  double sum = 0;
  for (int id : kept) sum += weight(id);
  double chi_square = 0;
  for (int id = 0; id < static_cast<int>(logits.size()); ++id) {
    if (kept.count(id) == 0) {
      EXPECT_EQ(counts[id], 0) << "id " << id;
      continue;
    }
    const double expected = kDraws * weight(id) / sum;
    chi_square += (counts[id] - expected) * (counts[id] - expected) / expected;
  }
  // The mean is the degrees of freedom, and the variance twice that; six
  // deviations are allowed.
  const double freedom = static_cast<double>(kept.size()) - 1;
  EXPECT_LE(chi_square, freedom + 6 * std::sqrt(2 * freedom));
}

SamplingSpec Spec(double temperature, int top_k, double top_p, uint64_t seed) {
  SamplingSpec spec;
  spec.temperature = temperature;
  spec.top_k = top_k;
  spec.top_p = top_p;
  spec.seed = seed;
  return spec;
}

TEST(SamplerTest, FollowsSoftmaxAtEveryTemperature) {
  const std::set<int> all = {0, 1, 2, 3, 4, 5, 6, 7};
  ExpectDistribution(kLogits, all, Spec(1.0, 0, 1.0, 1));
  ExpectDistribution(kLogits, all, Spec(0.7, 0, 1.0, 2));
  ExpectDistribution(kLogits, all, Spec(5.0, 0, 1.0, 3));
}

TEST(SamplerTest, TopKKeepsTheMostLikely) {
  ExpectDistribution(kLogits, {2, 7, 4}, Spec(1.0, 3, 1.0, 4));
  ExpectDistribution(kLogits, {2, 7}, Spec(1.0, 2, 1.0, 5));
  // The tie of ids 2 and 7 goes to the lower one.
  ExpectDistribution(kLogits, {2}, Spec(1.0, 1, 1.0, 6));
  const std::set<int> all = {0, 1, 2, 3, 4, 5, 6, 7};
  ExpectDistribution(kLogits, all, Spec(1.0, 8, 1.0, 7));
  ExpectDistribution(kLogits, all, Spec(1.0, 1000, 1.0, 8));
}

TEST(SamplerTest, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> even(4, 1.0f);  // a quarter each
  ExpectDistribution(even, {0, 1}, Spec(1.0, 0, 0.5, 9));
  ExpectDistribution(even, {0, 1, 2}, Spec(1.0, 0, 0.51, 10));
  ExpectDistribution(even, {0}, Spec(1.0, 0, 0.25, 11));
  ExpectDistribution(even, {0}, Spec(1.0, 0, 1e-9, 12));
  ExpectDistribution(even, {0, 1, 2, 3}, Spec(1.0, 0, 0.99, 13));
}

TEST(SamplerTest, TopPCountsWhatTopKLeft) {
  const std::vector<float> even(8, 0.0f);
  // Two of the four kept ids have half the mass.
  ExpectDistribution(even, {0, 1}, Spec(1.0, 4, 0.5, 14));
}

TEST(SamplerTest, TopPIsTakenAfterTemperature) {
  // A tiny temperature puts nearly all mass on one id; a huge one spreads it.
  const std::vector<float> logits = {1.0f, 2.0f, 0.0f, 1.5f};
  ExpectDistribution(logits, {1}, Spec(0.05, 0, 0.9, 15));
  ExpectDistribution(logits, {0, 1, 2, 3}, Spec(1000.0, 0, 0.9, 16));
}

TEST(SamplerTest, SameSeedAndStepGiveTheSameId) {
  std::set<std::vector<int32_t>> runs;
  for (uint64_t seed : {0ull, 1ull, 1ull << 32, ~0ull}) {
    std::vector<int32_t> forward, again;
    const SamplingSpec spec = Spec(1.0, 0, 1.0, seed);
    for (int step = 0; step < 64; ++step) {
      forward.push_back(Sample(kLogits, spec, step));
    }
    for (int step = 63; step >= 0; --step) {
      again.insert(again.begin(), Sample(kLogits, spec, step));
    }
    EXPECT_EQ(forward, again);  // no state is kept between steps
    runs.insert(forward);
  }
  EXPECT_EQ(runs.size(), 4u);
}

TEST(SamplerTest, LogitsThatAreNotFiniteGetNoWeight) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  ExpectDistribution({nan, 1.0f, inf, 0.0f, -inf}, {1, 3},
                     Spec(1.0, 0, 1.0, 17));
  ExpectDistribution({nan, 1.0f, inf, 0.0f, -inf}, {1}, Spec(1.0, 1, 1.0, 18));
  EXPECT_EQ(Sample(std::vector<float>{nan, nan}, Spec(1.0, 0, 1.0, 19), 0), 0);
}

TEST(SamplerTest, LargeLogitsDoNotOverflow) {
  ExpectDistribution({3e38f, 3e38f, -3e38f}, {0, 1}, Spec(1.0, 2, 1.0, 20));
  ExpectDistribution({1e4f, 1e4f - 1, 0.0f}, {0, 1}, Spec(1.0, 2, 1.0, 21));
}

TEST(SamplerTest, OneIdIsAllThereIs) {
  ExpectDistribution({-5.0f}, {0}, Spec(0.3, 0, 0.1, 22));
}

}  // namespace
}  // namespace qk
