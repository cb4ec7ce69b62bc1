// What the conformance cases of all ops share: the available backends, and
// device memory with guard bands.
#ifndef QKSCOPE_TESTS_ENGINE_BACKEND_CONFORMANCE_H_
#define QKSCOPE_TESTS_ENGINE_BACKEND_CONFORMANCE_H_

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/engine/backend/compare.h"
#include "tests/engine/test_backend.h"

namespace qk::testing {

// One backend on which the table of cases runs.
struct BackendCase {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
  bool rounds_attention = false;  // as TestBackend's
};

inline void PrintTo(const BackendCase& c, std::ostream* out) { *out << c.name; }

inline std::vector<BackendCase> AllBackends() {
  std::vector<BackendCase> cases;
  const TestBackend backend = ChosenTestBackend();
  for (int threads : {1, 2}) {
    if (threads > 1 && !backend.has_threads) continue;
    cases.push_back({absl::StrCat(InTestName(backend), "_", threads,
                                  threads == 1 ? "_thread" : "_threads"),
                     [backend, threads] { return backend.make(threads); },
                     backend.rounds_attention});
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
