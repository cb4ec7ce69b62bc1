// Tests of the CUDA kernels under tests/cuda_on_cpu: memory in place of the
// device's, and runs in several orders of threads.
#ifndef QKSCOPE_TESTS_ENGINE_CUDA_KERNEL_TESTING_H_
#define QKSCOPE_TESTS_ENGINE_CUDA_KERNEL_TESTING_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "tests/cuda_on_cpu/block.h"
#include "tests/engine/backend/compare.h"

namespace qk::testing {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;  // tests take small cases
#else
inline constexpr bool kSanitized = false;
#endif

inline constexpr cuda::Stream kStream = nullptr;

// Memory that kernels see as the device's, aligned as cudaMalloc aligns. All of
// it starts as bytes 0xFF, a NaN in every float type. It lies between two bands
// that must not change; AddressSanitizer watches its ends by itself.
template <typename T>
class Array {
 public:
  explicit Array(size_t n) : n_(n) {
    memory_.reset(static_cast<uint8_t*>(
        ::operator new[](Bytes(), std::align_val_t{kAlignment})));
    std::memset(memory_.get(), 0xFF, Bytes());
  }
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    if (n_ > 0) std::memcpy(data(), values.data(), n_ * sizeof(T));
  }

  T* data() const { return reinterpret_cast<T*>(memory_.get() + kBand); }
  size_t size() const { return n_; }

  // Checks the bands.
  std::vector<T> Read() const {
    for (size_t i = 0; i < kBand; ++i) {
      EXPECT_EQ(memory_[i], 0xFF) << kBand - i << " bytes before";
      EXPECT_EQ(memory_[Bytes() - 1 - i], 0xFF) << kBand - i << " bytes after";
    }
    std::vector<T> values(n_);
    if (n_ > 0) std::memcpy(values.data(), data(), n_ * sizeof(T));
    return values;
  }

 private:
  static constexpr size_t kAlignment = 256;
  static constexpr size_t kBand = kSanitized ? 0 : 256;
  struct Delete {
    void operator()(uint8_t* p) const {
      ::operator delete[](p, std::align_val_t{kAlignment});
    }
  };
  size_t Bytes() const { return 2 * kBand + n_ * sizeof(T); }

  size_t n_;
  std::unique_ptr<uint8_t[], Delete> memory_;
};

// Returns run()'s vector, which must have the same bytes whatever the order of
// blocks and threads.
template <typename Run>
auto InEveryOrder(const std::string& what, const Run& run) {
  using cuda_on_cpu::Order;
  cuda_on_cpu::Options& options = cuda_on_cpu::options();
  options.order = Order::kAscending;
  const auto first = run();
  if (!kSanitized) {
    options.order = Order::kDescending;
    ExpectSame(run(), first, what + ", descending order");
  }
  options.order = Order::kRandom;
  for (uint32_t seed : {1, 2}) {
    if (kSanitized && seed == 2) break;
    options.seed = seed;
    ExpectSame(run(), first, what + ", random order");
  }
  options.order = Order::kAscending;
  return first;
}

inline std::vector<uint16_t> ToBf16(const std::vector<float>& x) {
  std::vector<uint16_t> out;
  for (float v : x) out.push_back(RoundToBF16(v));
  return out;
}

inline std::vector<float> FromBf16(const std::vector<uint16_t>& x) {
  std::vector<float> out;
  for (uint16_t v : x) out.push_back(FromBF16(v));
  return out;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_CUDA_KERNEL_TESTING_H_
