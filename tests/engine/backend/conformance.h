// What the conformance cases of all ops share: the available backends, device
// memory with guard bands, and comparisons that fail on NaN.
#ifndef QKSCOPE_TESTS_ENGINE_BACKEND_CONFORMANCE_H_
#define QKSCOPE_TESTS_ENGINE_BACKEND_CONFORMANCE_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/half.h"
#include "gtest/gtest.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {

inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr double kEpsilon = 1.0 / (1 << 24);  // rounding to float32

// One backend on which the table of cases runs.
struct BackendCase {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
};

inline void PrintTo(const BackendCase& c, std::ostream* out) { *out << c.name; }

inline std::vector<BackendCase> AllBackends() {
  std::vector<BackendCase> cases;
  const TestBackend backend = ChosenTestBackend();
  for (int threads : {1, 2}) {
    cases.push_back({absl::StrCat(InTestName(backend), "_", threads,
                                  threads == 1 ? "_thread" : "_threads"),
                     [backend, threads] { return backend.make(threads); }});
  }
  return cases;
}

// Device memory between two bands. All of it starts as bytes 0xFF, a NaN in
// every float type, so that it shows what an op leaves unwritten or reads from
// a band.
template <typename T>
class DeviceVector {
 public:
  DeviceVector(Backend& backend, size_t n)
      : backend_(backend),
        n_(n),
        host_(2 * kBand + n * sizeof(T), uint8_t{0xFF}),
        buffer_(backend.Allocate(static_cast<int64_t>(host_.size())).value()) {
    backend_.Upload(buffer_.template as<void>(), host_.data(), buffer_.bytes());
  }
  DeviceVector(Backend& backend, const std::vector<T>& values)
      : DeviceVector(backend, values.size()) {
    Write(values);
  }

  T* data() const {
    return reinterpret_cast<T*>(buffer_.template as<uint8_t>() + kBand);
  }
  void Write(const std::vector<T>& values) {
    ASSERT_EQ(values.size(), n_);
    backend_.Upload(data(), values.data(),
                    static_cast<int64_t>(n_ * sizeof(T)));
  }
  // Waits for the device, and checks the bands.
  std::vector<T> Read() {
    const Arrival arrival =
        backend_.Fetch(buffer_.template as<void>(), buffer_.bytes());
    const absl::Status status = backend_.Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    const absl::Span<const uint8_t> bytes = arrival.bytes();
    host_.assign(bytes.begin(), bytes.end());
    for (size_t i = 0; i < kBand; ++i) {
      EXPECT_EQ(host_[i], 0xFF) << kBand - i << " bytes before";
      EXPECT_EQ(host_[host_.size() - 1 - i], 0xFF)
          << kBand - i << " bytes after";
    }
    std::vector<T> values(n_);
    if (n_ > 0) {
      std::memcpy(values.data(), host_.data() + kBand, n_ * sizeof(T));
    }
    return values;
  }

 private:
  static constexpr size_t kBand = 256;

  Backend& backend_;
  size_t n_;
  std::vector<uint8_t> host_;
  DeviceBuffer buffer_;
};

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
    if (std::memcmp(&got[i], &want[i], sizeof(T)) == 0) continue;
    ADD_FAILURE() << what << " [" << i << "]: got " << +got[i] << ", want "
                  << +want[i];
    return;
  }
}

class ConformanceTest : public ::testing::TestWithParam<BackendCase> {
 protected:
  ConformanceTest() : backend_(GetParam().make()) {}
  Backend& backend() { return *backend_; }

 private:
  std::unique_ptr<Backend> backend_;
};

inline std::string BackendName(
    const ::testing::TestParamInfo<BackendCase>& info) {
  return info.param.name;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_BACKEND_CONFORMANCE_H_
