// The blocks in which weights are stored, as ggml lays them out (ggml-common.h;
// quants.py of the Python package gguf). Each type is a struct with the
// elements and bytes of a block and Run(), which converts one block to float32.
// Products are rounded in that package's order: first a scale times its
// sub-scale, then times the quant, then minus the minimum.
// engine/cuda/quant_block.h has the same types for a GPU.
#ifndef QKSCOPE_ENGINE_FORMATS_QUANT_BLOCKS_H_
#define QKSCOPE_ENGINE_FORMATS_QUANT_BLOCKS_H_

#include <bit>
#include <cstdint>
#include <cstring>

#include "engine/base/target_clones.h"

// One body is compiled for several instruction sets and chosen at run time.
// None fuses multiply and add (-ffp-contract=off), so all give the same bits.
#define QK_CLONES QK_TARGET_CLONES("avx2", "default")

// This must be inlined into its caller, which is compiled for several
// instruction sets.
#define QK_INLINE __attribute__((always_inline)) inline

namespace qk::quant {

static_assert(std::endian::native == std::endian::little);

constexpr int kQkK = 256;  // elements of a "K" block

QK_INLINE uint16_t Load16(const uint8_t* src) {
  uint16_t value;
  std::memcpy(&value, src, sizeof(value));
  return value;
}

// Converts IEEE binary16 to binary32 without branches, so that loops vectorise.
QK_INLINE float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t rest = half & 0x7FFF;
  const uint32_t rebias = 112u << 23;  // 127 - 15
  uint32_t normal = (rest << 13) + rebias;
  normal += rest >= 0x7C00 ? rebias : 0;  // infinity and NaN
  const uint32_t subnormal = std::bit_cast<uint32_t>(
      static_cast<float>(static_cast<int32_t>(rest)) * 0x1p-24f);
  return std::bit_cast<float>(sign | (rest < 0x0400 ? subnormal : normal));
}

QK_INLINE float Half(const uint8_t* src) { return HalfToFloat(Load16(src)); }

template <int kCount>
QK_INLINE void Scale(const int8_t* quants, float scale, float* dst) {
  for (int i = 0; i < kCount; ++i) {
    dst[i] = scale * static_cast<float>(quants[i]);
  }
}

template <int kCount>
QK_INLINE void ScaleAndAdd(const int8_t* quants, float scale, float offset,
                           float* dst) {
  for (int i = 0; i < kCount; ++i) {
    dst[i] = scale * static_cast<float>(quants[i]) + offset;
  }
}

// dst[i] = the `kBits` bits of src[i] from `shift` on.
template <int kCount, int kBits>
QK_INLINE void Unpack(const uint8_t* src, int shift, int8_t* dst) {
  for (int i = 0; i < kCount; ++i) {
    dst[i] = static_cast<int8_t>((src[i] >> shift) & ((1 << kBits) - 1));
  }
}

template <int kCount>
QK_INLINE void Subtract(int8_t amount, int8_t* quants) {
  for (int i = 0; i < kCount; ++i) {
    quants[i] = static_cast<int8_t>(quants[i] - amount);
  }
}

// 32 quants: first the low nibbles of 16 bytes, then their high nibbles.
QK_INLINE void UnpackNibbles(const uint8_t* src, int8_t* dst) {
  Unpack<16, 4>(src, 0, dst);
  Unpack<16, 4>(src, 4, dst + 16);
}

// Adds the fifth bits: bit i of a 32-bit word belongs to quant i.
QK_INLINE void AddFifthBits(const uint8_t* src, int8_t* quants) {
  for (int i = 0; i < 32; ++i) {
    quants[i] =
        static_cast<int8_t>(quants[i] | ((src[i / 8] >> (i % 8) & 1) << 4));
  }
}

// half d; 16 bytes of nibbles
struct Q4_0 {
  static constexpr int kElements = 32, kBytes = 18;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    int8_t quants[32];
    UnpackNibbles(src + 2, quants);
    Subtract<32>(8, quants);
    Scale<32>(quants, Half(src), dst);
  }
};

// half d; half min; 16 bytes of nibbles
struct Q4_1 {
  static constexpr int kElements = 32, kBytes = 20;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    int8_t quants[32];
    UnpackNibbles(src + 4, quants);
    ScaleAndAdd<32>(quants, Half(src), Half(src + 2), dst);
  }
};

// half d; 4 bytes of fifth bits; 16 bytes of nibbles
struct Q5_0 {
  static constexpr int kElements = 32, kBytes = 22;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    int8_t quants[32];
    UnpackNibbles(src + 6, quants);
    AddFifthBits(src + 2, quants);
    Subtract<32>(16, quants);
    Scale<32>(quants, Half(src), dst);
  }
};

// half d; half min; 4 bytes of fifth bits; 16 bytes of nibbles
struct Q5_1 {
  static constexpr int kElements = 32, kBytes = 24;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    int8_t quants[32];
    UnpackNibbles(src + 8, quants);
    AddFifthBits(src + 4, quants);
    ScaleAndAdd<32>(quants, Half(src), Half(src + 2), dst);
  }
};

// half d; 32 signed bytes
struct Q8_0 {
  static constexpr int kElements = 32, kBytes = 34;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    int8_t quants[32];
    std::memcpy(quants, src + 2, sizeof(quants));
    Scale<32>(quants, Half(src), dst);
  }
};

// Unpacks the scales of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit
// minima in 12 bytes. The first four of each lie whole in bytes 0..3 and 4..7;
// the last four have their low bits in bytes 8..11 and their two high bits on
// top of the first eight.
QK_INLINE void SixBitScale(const uint8_t* packed, int i, float* scale,
                           float* min) {
  if (i < 4) {
    *scale = packed[i] & 0x3F;
    *min = packed[i + 4] & 0x3F;
  } else {
    *scale = (packed[i + 4] & 0x0F) | (packed[i - 4] >> 6 << 4);
    *min = (packed[i + 4] >> 4) | (packed[i] >> 6 << 4);
  }
}

// 16 bytes of (4-bit scale, 4-bit min); 64 bytes of 2-bit quants; half d;
// half dmin
struct Q2_K {
  static constexpr int kElements = kQkK, kBytes = 84;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    const float d = Half(src + 80);
    const float dmin = Half(src + 82);
    for (int part = 0; part < 8; ++part) {
      int8_t quants[32];
      Unpack<32, 2>(src + 16 + part / 4 * 32, part % 4 * 2, quants);
      for (int i = 0; i < 2; ++i) {
        const uint8_t packed = src[part * 2 + i];
        ScaleAndAdd<16>(quants + i * 16, d * static_cast<float>(packed & 0x0F),
                        -(dmin * static_cast<float>(packed >> 4)),
                        dst + part * 32 + i * 16);
      }
    }
  }
};

// 32 bytes of third bits; 64 bytes of 2-bit quants; 16 6-bit scales in 12
// bytes; half d. A third bit of 0 means 4 less.
struct Q3_K {
  static constexpr int kElements = kQkK, kBytes = 110;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    const uint8_t* scales = src + 96;
    const float d = Half(src + 108);
    for (int part = 0; part < 8; ++part) {
      int8_t quants[32];
      Unpack<32, 2>(src + 32 + part / 4 * 32, part % 4 * 2, quants);
      for (int i = 0; i < 32; ++i) {
        quants[i] =
            static_cast<int8_t>((quants[i] | (src[i] >> part & 1) << 2) - 4);
      }
      for (int i = part * 2; i < part * 2 + 2; ++i) {
        const int low = scales[i % 8] >> (i / 8 * 4) & 0x0F;
        const int high = scales[8 + i % 4] >> (i / 4 * 2) & 0x03;
        const float scale = static_cast<float>((low | high << 4) - 32);
        Scale<16>(quants + i % 2 * 16, d * scale, dst + i * 16);
      }
    }
  }
};

// half d; half dmin; 12 bytes of scales and minima; 128 bytes of nibbles
struct Q4_K {
  static constexpr int kElements = kQkK, kBytes = 144;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    const float d = Half(src);
    const float dmin = Half(src + 2);
    for (int part = 0; part < 8; ++part) {
      float scale, min;
      SixBitScale(src + 4, part, &scale, &min);
      int8_t quants[32];
      Unpack<32, 4>(src + 16 + part / 2 * 32, part % 2 * 4, quants);
      ScaleAndAdd<32>(quants, d * scale, -(dmin * min), dst + part * 32);
    }
  }
};

// half d; half dmin; 12 bytes of scales and minima; 32 bytes of fifth bits;
// 128 bytes of nibbles
struct Q5_K {
  static constexpr int kElements = kQkK, kBytes = 176;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    const float d = Half(src);
    const float dmin = Half(src + 2);
    for (int part = 0; part < 8; ++part) {
      float scale, min;
      SixBitScale(src + 4, part, &scale, &min);
      int8_t quants[32];
      Unpack<32, 4>(src + 48 + part / 2 * 32, part % 2 * 4, quants);
      for (int i = 0; i < 32; ++i) {
        quants[i] =
            static_cast<int8_t>(quants[i] | (src[16 + i] >> part & 1) << 4);
      }
      ScaleAndAdd<32>(quants, d * scale, -(dmin * min), dst + part * 32);
    }
  }
};

// 128 bytes of nibbles; 64 bytes of bits 5 and 6; 16 signed scales; half d
struct Q6_K {
  static constexpr int kElements = kQkK, kBytes = 210;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    const float d = Half(src + 208);
    for (int part = 0; part < 8; ++part) {
      const uint8_t* low = src + part / 4 * 64 + part % 2 * 32;
      const uint8_t* high = src + 128 + part / 4 * 32;
      int8_t quants[32];
      for (int i = 0; i < 32; ++i) {
        const int four = low[i] >> (part % 4 / 2 * 4) & 0x0F;
        const int two = high[i] >> (part % 4 * 2) & 0x03;
        quants[i] = static_cast<int8_t>((four | two << 4) - 32);
      }
      for (int i = 0; i < 2; ++i) {
        const auto scale = static_cast<int8_t>(src[192 + part * 2 + i]);
        Scale<16>(quants + i * 16, d * static_cast<float>(scale),
                  dst + part * 32 + i * 16);
      }
    }
  }
};

// Maps 32 nibbles to the values of a table.
QK_INLINE void LookUp(const int8_t* table, int8_t* quants) {
  for (int i = 0; i < 32; ++i) quants[i] = table[quants[i]];
}

constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

// half d; 16 bytes of nibbles, which index the table above
struct IQ4_NL {
  static constexpr int kElements = 32, kBytes = 18;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    int8_t quants[32];
    UnpackNibbles(src + 2, quants);
    LookUp(kIq4Values, quants);
    Scale<32>(quants, Half(src), dst);
  }
};

// half d; the high 2 bits of the 8 parts' scales; their low nibbles; then 16
// bytes of nibbles for each part, which index the same table
struct IQ4_XS {
  static constexpr int kElements = kQkK, kBytes = 136;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    const float d = Half(src);
    const uint16_t high = Load16(src + 2);
    for (int part = 0; part < 8; ++part) {
      const int low = src[4 + part / 2] >> (part % 2 * 4) & 0x0F;
      const int scale = (low | (high >> (2 * part) & 0x03) << 4) - 32;
      int8_t quants[32];
      UnpackNibbles(src + 8 + part * 16, quants);
      LookUp(kIq4Values, quants);
      Scale<32>(quants, d * static_cast<float>(scale), dst + part * 32);
    }
  }
};

// FP4 (e2m1) with a shared exponent (e8m0), of the Open Compute Project's
// Microscaling Formats 1.0: the exponent; 16 bytes of nibbles. The table has
// the values doubled, so that they are integers, and the scale is halved.
struct MXFP4 {
  static constexpr int kElements = 32, kBytes = 17;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    constexpr int8_t kValues[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                    0, -1, -2, -3, -4, -6, -8, -12};
    const uint32_t exponent = src[0];
    const uint32_t scale =
        exponent < 2 ? uint32_t{0x00200000} << exponent : (exponent - 1) << 23;
    int8_t quants[32];
    UnpackNibbles(src + 1, quants);
    LookUp(kValues, quants);
    Scale<32>(quants, std::bit_cast<float>(scale), dst);
  }
};

struct F16 {
  static constexpr int kElements = 1, kBytes = 2;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    *dst = Half(src);
  }
};

struct BF16 {
  static constexpr int kElements = 1, kBytes = 2;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    *dst = std::bit_cast<float>(static_cast<uint32_t>(Load16(src)) << 16);
  }
};

struct F32 {
  static constexpr int kElements = 1, kBytes = 4;
  static QK_INLINE void Run(const uint8_t* src, float* dst) {
    std::memcpy(dst, src, sizeof(*dst));
  }
};

// This type has a size, but Dequantize refuses it.
struct I32 {
  static constexpr int kElements = 1, kBytes = 4;
  static QK_INLINE void Run(const uint8_t*, float*) {}
};

}  // namespace qk::quant

#endif  // QKSCOPE_ENGINE_FORMATS_QUANT_BLOCKS_H_
