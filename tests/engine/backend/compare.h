// Comparisons that fail on NaN, and random values, for tests of ops.
#ifndef QKSCOPE_TESTS_ENGINE_BACKEND_COMPARE_H_
#define QKSCOPE_TESTS_ENGINE_BACKEND_COMPARE_H_

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/base/half.h"
#include "engine/types/compute_type.h"
#include "gtest/gtest.h"

namespace qk::testing {

inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr double kEpsilon = 1.0 / (1 << 24);  // rounding to float32

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}

  std::vector<float> Normal(size_t n, float scale = 1.0f) {
    std::normal_distribution<float> normal;  // scaled below; `scale` may be 0
    std::vector<float> values(n);
    for (float& x : values) x = normal(engine_) * scale;
    return values;
  }
  int Below(int n) { return static_cast<int>(engine_() % n); }

 private:
  std::mt19937 engine_;
};

inline std::vector<float> Rounded(std::vector<float> x, ComputeType type) {
  if (type == ComputeType::kBF16) {
    for (float& value : x) value = FromBF16(RoundToBF16(value));
  }
  return x;
}

// Elements that are not finite must be the same ones; the sum of squared errors
// of the others may be `bound` x their sum of squares.
inline void ExpectNmse(const std::vector<float>& got,
                       const std::vector<double>& want, double bound,
                       const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double error = 0, power = 0, worst = -1;
  size_t worst_at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(want[i])) {
      EXPECT_TRUE(std::isnan(want[i]) ? std::isnan(got[i]) : got[i] == want[i])
          << what << " [" << i << "]: got " << got[i] << ", want " << want[i];
      continue;
    }
    const double d = std::abs(got[i] - want[i]);
    error += d * d;
    power += want[i] * want[i];
    if (!(d <= worst)) {
      worst = d;
      worst_at = i;
    }
  }
  EXPECT_TRUE(error <= bound * power)
      << what << ": NMSE " << error / power << ", allowed " << bound
      << "; worst [" << worst_at << "]: got " << got[worst_at] << ", want "
      << want[worst_at];
}

// Every element must be within `tiny` + `relative` x the expected value.
inline void ExpectEach(const std::vector<float>& got,
                       const std::vector<double>& want, double relative,
                       double tiny, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    const bool close =
        std::isnan(want[i])
            ? std::isnan(got[i])
            : got[i] == want[i] || std::abs(got[i] - want[i]) <=
                                       tiny + relative * std::abs(want[i]);
    EXPECT_TRUE(close) << what << " [" << i << "]: got " << got[i] << ", want "
                       << want[i];
  }
}

// Checks that the bytes are equal.
template <typename T>
void ExpectSame(const std::vector<T>& got, const std::vector<T>& want,
                const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    const auto bytes = [](const T& x) {
      std::array<uint8_t, sizeof(T)> copy;
      std::memcpy(copy.data(), &x, sizeof(T));
      return copy;
    };
    if (bytes(got[i]) == bytes(want[i])) continue;
    ADD_FAILURE() << what << " [" << i << "]: got "
                  << ::testing::PrintToString(got[i]) << ", want "
                  << ::testing::PrintToString(want[i]);
    return;
  }
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_BACKEND_COMPARE_H_
