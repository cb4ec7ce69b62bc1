// Rounding to the two 16-bit float types: to nearest, ties to even. NaN stays
// NaN.
#ifndef QKSCOPE_ENGINE_BASE_HALF_H_
#define QKSCOPE_ENGINE_BASE_HALF_H_

#include <bit>
#include <cstdint>

namespace qk {

inline uint16_t RoundToBF16(float x) {
  // Without a branch, so that compilers turn loops over it into vectors.
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t nan = bits | 0x400000u;
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<uint16_t>((is_nan ? nan : rounded) >> 16);
}

inline float FromBF16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Overflow gives infinity.
inline uint16_t RoundToF16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;   // NaN
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // rounds to 65,536
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 puts the result's last bit at the sum's last bit.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return sign |
           static_cast<uint16_t>(std::bit_cast<uint32_t>(sum) - 0x3f000000u);
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return sign | static_cast<uint16_t>((rounded - 0x38000000u) >> 13);
}

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_HALF_H_
