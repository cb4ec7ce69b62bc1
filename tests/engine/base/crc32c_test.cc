#include "engine/base/crc32c.h"

#include <cstdint>
#include <numeric>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace qk {
namespace {

// Computes bit by bit, as RFC 3720 describes it.
uint32_t Naive(const std::string& data) {
  uint32_t state = ~0u;
  for (const char c : data) {
    state ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) {
      state = (state >> 1) ^ ((state & 1) != 0 ? 0x82f63b78u : 0);
    }
  }
  return ~state;
}

TEST(Crc32cTest, PublishedValues) {
  // The values are from RFC 3720, appendix B.4.
  std::string ascending(32, '\0');
  std::iota(ascending.begin(), ascending.end(), '\0');
  const std::string descending(ascending.rbegin(), ascending.rend());
  const std::string zeros(32, '\0'), ones(32, '\xff');
  EXPECT_EQ(Crc32c(zeros.data(), 32), 0x8a9136aau);
  EXPECT_EQ(Crc32c(ones.data(), 32), 0x62a8ab43u);
  EXPECT_EQ(Crc32c(ascending.data(), 32), 0x46dd794eu);
  EXPECT_EQ(Crc32c(descending.data(), 32), 0x113fdb5cu);
  EXPECT_EQ(Crc32c("123456789", 9), 0xe3069283u);
  EXPECT_EQ(Crc32c(nullptr, 0), 0u);
}

TEST(Crc32cTest, EveryLengthInOnePieceAndInTwo) {
  std::mt19937 random(1);
  std::string data(700, '\0');
  for (char& c : data) c = static_cast<char>(random());
  for (size_t size = 0; size <= data.size(); ++size) {
    const uint32_t expected = Naive(data.substr(0, size));
    ASSERT_EQ(Crc32c(data.data(), size), expected) << size;
    const size_t cut = random() % (size + 1);
    const uint32_t first = Crc32c(data.data(), cut);
    ASSERT_EQ(ExtendCrc32c(first, data.data() + cut, size - cut), expected)
        << cut << " of " << size;
  }
}

}  // namespace
}  // namespace qk
