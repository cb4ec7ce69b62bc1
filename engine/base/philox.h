// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011). A random choice depends on its
// purpose, never on its place in a batch.
#ifndef QKSCOPE_ENGINE_BASE_PHILOX_H_
#define QKSCOPE_ENGINE_BASE_PHILOX_H_

#include <array>
#include <cstdint>

namespace qk {

inline std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                                      std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// The purpose of a stream of random numbers.
enum class RandomPurpose : uint32_t { kRandomK = 1, kSampling = 2 };

// A stream of numbers that (seed, purpose, layer, tensor, head, step)
// determine.
class PhiloxStream {
 public:
  PhiloxStream(uint64_t seed, RandomPurpose purpose, uint32_t layer,
               uint32_t tensor, uint32_t head, uint32_t step)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        counter_{0, step,
                 static_cast<uint32_t>(purpose) << 24 | (tensor & 255) << 16 |
                     (head & 65535),
                 layer} {}

  uint32_t Next() {
    if (word_ == 4) {
      block_ = Philox(counter_, key_);
      ++counter_[0];
      word_ = 0;
    }
    return block_[word_++];
  }

  // Uniform in [0, n), n >= 1, by rejection.
  uint32_t Below(uint32_t n) {
    const uint64_t limit = (uint64_t{1} << 32) - (uint64_t{1} << 32) % n;
    uint32_t x = Next();
    while (x >= limit) x = Next();
    return x % n;
  }

  // Uniform in [0, 1), with 53 bits.
  double Uniform() {
    const uint64_t high = Next() >> 5;
    const uint64_t low = Next() >> 6;
    return static_cast<double>(high * 67108864 + low) / 9007199254740992.0;
  }

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int word_ = 4;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_PHILOX_H_
