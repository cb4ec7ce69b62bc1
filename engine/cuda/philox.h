// engine/base/philox.h's stream of random numbers, for kernels.
#ifndef QKSCOPE_ENGINE_CUDA_PHILOX_H_
#define QKSCOPE_ENGINE_CUDA_PHILOX_H_

#include <cstdint>

#include "engine/base/philox.h"
#include "engine/cuda/device.h"

namespace qk::cuda {

class DevicePhilox {
 public:
  __device__ DevicePhilox(uint64_t seed, RandomPurpose purpose, uint32_t layer,
                          uint32_t tensor, uint32_t head, uint32_t step)
      : key0_(static_cast<uint32_t>(seed)),
        key1_(static_cast<uint32_t>(seed >> 32)),
        step_(step),
        where_(static_cast<uint32_t>(purpose) << 24 | (tensor & 255) << 16 |
               (head & 65535)),
        layer_(layer) {}

  // Uniform in [0, n), n >= 1, by rejection.
  __device__ uint32_t Below(uint32_t n) {
    const uint64_t limit = (uint64_t{1} << 32) - (uint64_t{1} << 32) % n;
    uint32_t x = Next();
    while (x >= limit) x = Next();
    return x % n;
  }

 private:
  __device__ uint32_t Next() {
    if (word_ == 4) Refill();
    const int word = word_++;
    return word == 0 ? a_ : word == 1 ? b_ : word == 2 ? c_ : d_;
  }

  __device__ void Refill() {
    a_ = block_++;
    b_ = step_;
    c_ = where_;
    d_ = layer_;
    uint32_t key0 = key0_, key1 = key1_;
    for (int round = 0; round < 10; ++round) {
      const uint64_t x = uint64_t{0xD2511F53} * a_;
      const uint64_t y = uint64_t{0xCD9E8D57} * c_;
      a_ = static_cast<uint32_t>(y >> 32) ^ b_ ^ key0;
      b_ = static_cast<uint32_t>(y);
      c_ = static_cast<uint32_t>(x >> 32) ^ d_ ^ key1;
      d_ = static_cast<uint32_t>(x);
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    word_ = 0;
  }

  uint32_t key0_, key1_, step_, where_, layer_;
  uint32_t block_ = 0;
  uint32_t a_ = 0, b_ = 0, c_ = 0, d_ = 0;
  int word_ = 4;
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_PHILOX_H_
