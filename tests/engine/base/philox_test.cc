#include "engine/base/philox.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace qk {
namespace {

using Words = std::array<uint32_t, 4>;

// The known answers are from Random123's kat_vectors for philox4x32-10.
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                   {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                   {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, StreamIsBlocksOfItsCounter) {
  const uint64_t seed = 0x0123456789abcdef;
  PhiloxStream stream(seed, RandomPurpose::kSampling, 3, 2, 7, 11);
  for (uint32_t block = 0; block < 3; ++block) {
    const Words expected = Philox(
        {block, 11, 2u << 24 | 2u << 16 | 7, 3},
        {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    for (uint32_t word : expected) EXPECT_EQ(stream.Next(), word);
  }
}

TEST(PhiloxTest, EveryPartOfTheKeyMatters) {
  const auto first = [](uint64_t seed, RandomPurpose purpose, uint32_t layer,
                        uint32_t tensor, uint32_t head, uint32_t step) {
    return PhiloxStream(seed, purpose, layer, tensor, head, step).Next();
  };
  const std::set<uint32_t> values = {
      first(0, RandomPurpose::kRandomK, 0, 0, 0, 0),
      first(1, RandomPurpose::kRandomK, 0, 0, 0, 0),
      first(uint64_t{1} << 32, RandomPurpose::kRandomK, 0, 0, 0, 0),
      first(0, RandomPurpose::kSampling, 0, 0, 0, 0),
      first(0, RandomPurpose::kRandomK, 1, 0, 0, 0),
      first(0, RandomPurpose::kRandomK, 0, 1, 0, 0),
      first(0, RandomPurpose::kRandomK, 0, 0, 1, 0),
      first(0, RandomPurpose::kRandomK, 0, 0, 0, 1)};
  EXPECT_EQ(values.size(), 8u);
}

TEST(PhiloxTest, BelowIsUniform) {
  for (uint32_t n : {1u, 2u, 5u, 7u, 64u}) {
    PhiloxStream stream(42, RandomPurpose::kRandomK, 0, 0, 0, n);
    std::vector<int> counts(n, 0);
    const int draws = 1000 * static_cast<int>(n);
    for (int i = 0; i < draws; ++i) ++counts.at(stream.Below(n));
    double chi_square = 0;
    for (int count : counts) chi_square += (count - 1e3) * (count - 1e3) / 1e3;
    // The mean is n - 1, the variance 2 (n - 1); six deviations are allowed.
    EXPECT_LE(chi_square, n - 1 + 6 * std::sqrt(2.0 * (n - 1))) << n;
  }
}

TEST(PhiloxTest, BelowTakesTheLargestBound) {
  PhiloxStream stream(1, RandomPurpose::kRandomK, 0, 0, 0, 0);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_LT(stream.Below(0xffffffffu), 0xffffffffu);
  }
}

TEST(PhiloxTest, UniformHasItsRangeAndMean) {
  PhiloxStream stream(9, RandomPurpose::kSampling, 0, 0, 0, 0);
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double x = stream.Uniform();
    ASSERT_TRUE(x >= 0 && x < 1) << x;
    sum += x;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);  // the standard deviation is 0.003
}

}  // namespace
}  // namespace qk
