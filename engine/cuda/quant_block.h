// One value of a block in which weights are stored. Each type is a struct with
// the elements and bytes of a block and At(block, i); what a block holds, and
// the order in which products are rounded, is said in
// engine/formats/quant_blocks.h. Nothing is indexed but the block itself, so
// that all of it stays in registers.
#ifndef QKSCOPE_ENGINE_CUDA_QUANT_BLOCK_H_
#define QKSCOPE_ENGINE_CUDA_QUANT_BLOCK_H_

#include <cstdint>

#include "engine/cuda/device.h"

namespace qk::cuda {

// A block may begin at any byte.
__device__ inline uint32_t Load16(const uint8_t* from) {
  return from[0] | uint32_t{from[1]} << 8;
}

__device__ inline float HalfAt(const uint8_t* from) {
  const uint32_t half = Load16(from);
  const uint32_t rest = half & 0x7FFF;
  const uint32_t rebias = 112u << 23;  // 127 - 15
  uint32_t bits = (rest << 13) + rebias;
  if (rest >= 0x7C00) bits += rebias;  // infinity and NaN
  if (rest < 0x0400) {
    bits = FloatBits(static_cast<float>(static_cast<int>(rest)) * 0x1p-24f);
  }
  return BitsToFloat((half & 0x8000) << 16 | bits);
}

// Nibble i of 16 bytes, the low ones of all bytes first.
__device__ inline int NibbleAt(const uint8_t* from, int i) {
  return from[i % 16] >> (i / 16 * 4) & 15;
}

// Bit i of some bytes, the lowest of each first.
__device__ inline int BitAt(const uint8_t* from, int i) {
  return from[i / 8] >> (i % 8) & 1;
}

__device__ inline float Scaled(float scale, int quant) {
  return scale * static_cast<float>(quant);
}

struct BlockQ4_0 {
  static constexpr int kElements = 32, kBytes = 18;
  static __device__ float At(const uint8_t* b, int i) {
    return Scaled(HalfAt(b), NibbleAt(b + 2, i) - 8);
  }
};

struct BlockQ4_1 {
  static constexpr int kElements = 32, kBytes = 20;
  static __device__ float At(const uint8_t* b, int i) {
    return Scaled(HalfAt(b), NibbleAt(b + 4, i)) + HalfAt(b + 2);
  }
};

struct BlockQ5_0 {
  static constexpr int kElements = 32, kBytes = 22;
  static __device__ float At(const uint8_t* b, int i) {
    return Scaled(HalfAt(b), (NibbleAt(b + 6, i) | BitAt(b + 2, i) << 4) - 16);
  }
};

struct BlockQ5_1 {
  static constexpr int kElements = 32, kBytes = 24;
  static __device__ float At(const uint8_t* b, int i) {
    return Scaled(HalfAt(b), NibbleAt(b + 8, i) | BitAt(b + 4, i) << 4) +
           HalfAt(b + 2);
  }
};

struct BlockQ8_0 {
  static constexpr int kElements = 32, kBytes = 34;
  static __device__ float At(const uint8_t* b, int i) {
    return Scaled(HalfAt(b), static_cast<int8_t>(b[2 + i]));
  }
};

struct BlockQ2_K {
  static constexpr int kElements = 256, kBytes = 84;
  static __device__ float At(const uint8_t* b, int i) {
    const int quant = b[16 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
    const int packed = b[i / 16];
    return Scaled(Scaled(HalfAt(b + 80), packed & 15), quant) -
           Scaled(HalfAt(b + 82), packed >> 4);
  }
};

struct BlockQ3_K {
  static constexpr int kElements = 256, kBytes = 110;
  static __device__ float At(const uint8_t* b, int i) {
    const int two = b[32 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
    const int third = b[i % 32] >> (i / 32) & 1;
    const uint8_t* scales = b + 96;
    const int s = i / 16;
    const int low = scales[s % 8] >> (s / 8 * 4) & 15;
    const int high = scales[8 + s % 4] >> (s / 4 * 2) & 3;
    return Scaled(Scaled(HalfAt(b + 108), (low | high << 4) - 32),
                  (two | third << 2) - 4);
  }
};

// The value of a quant in part `part` of a block of Q4_K or Q5_K.
__device__ inline float ScaledByPart(const uint8_t* b, int part, int quant) {
  const uint8_t* packed = b + 4;
  int scale = packed[part] & 63;
  int min = packed[part + 4] & 63;
  if (part >= 4) {
    scale = (packed[part + 4] & 15) | packed[part - 4] >> 6 << 4;
    min = packed[part + 4] >> 4 | packed[part] >> 6 << 4;
  }
  return Scaled(Scaled(HalfAt(b), scale), quant) - Scaled(HalfAt(b + 2), min);
}

struct BlockQ4_K {
  static constexpr int kElements = 256, kBytes = 144;
  static __device__ float At(const uint8_t* b, int i) {
    const int part = i / 32;
    const int quant = b[16 + i / 64 * 32 + i % 32] >> (part % 2 * 4) & 15;
    return ScaledByPart(b, part, quant);
  }
};

struct BlockQ5_K {
  static constexpr int kElements = 256, kBytes = 176;
  static __device__ float At(const uint8_t* b, int i) {
    const int part = i / 32;
    const int four = b[48 + i / 64 * 32 + i % 32] >> (part % 2 * 4) & 15;
    const int fifth = b[16 + i % 32] >> part & 1;
    return ScaledByPart(b, part, four | fifth << 4);
  }
};

struct BlockQ6_K {
  static constexpr int kElements = 256, kBytes = 210;
  static __device__ float At(const uint8_t* b, int i) {
    const int half = i / 128, part = i / 32 % 4, k = i % 32;
    const int four = b[half * 64 + part % 2 * 32 + k] >> (part / 2 * 4) & 15;
    const int two = b[128 + half * 32 + k] >> (part * 2) & 3;
    const int scale = static_cast<int8_t>(b[192 + i / 16]);
    return Scaled(Scaled(HalfAt(b + 208), scale), (four | two << 4) - 32);
  }
};

// Value i of a table of 16 bytes, from the lowest byte of a number on.
__device__ inline int Iq4Value(int i) {
  // -127 -104 -83 -65 -49 -35 -22 -10, and 1 13 25 38 53 69 89 113.
  const uint64_t bytes = i < 8 ? 0xF6EADDCFBFAD9881u : 0x7159453526190D01u;
  return static_cast<int8_t>(bytes >> (i % 8 * 8));
}

struct BlockIQ4_NL {
  static constexpr int kElements = 32, kBytes = 18;
  static __device__ float At(const uint8_t* b, int i) {
    return Scaled(HalfAt(b), Iq4Value(NibbleAt(b + 2, i)));
  }
};

struct BlockIQ4_XS {
  static constexpr int kElements = 256, kBytes = 136;
  static __device__ float At(const uint8_t* b, int i) {
    const int part = i / 32;
    const int low = b[4 + part / 2] >> (part % 2 * 4) & 15;
    const int high = static_cast<int>(Load16(b + 2) >> (2 * part) & 3);
    return Scaled(Scaled(HalfAt(b), (low | high << 4) - 32),
                  Iq4Value(NibbleAt(b + 8 + part * 16, i % 32)));
  }
};

struct BlockMXFP4 {
  static constexpr int kElements = 32, kBytes = 17;
  static __device__ float At(const uint8_t* b, int i) {
    const uint32_t exponent = b[0];
    const uint32_t scale =
        exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23;
    const int nibble = NibbleAt(b + 1, i);
    // Twice 0, 0.5, 1, 1.5, 2, 3, 4, 6, one in each nibble.
    const int value = static_cast<int>(0xC8643210u >> (nibble % 8 * 4) & 15);
    return Scaled(BitsToFloat(scale), nibble < 8 ? value : -value);
  }
};

struct BlockF16 {
  static constexpr int kElements = 1, kBytes = 2;
  static __device__ float At(const uint8_t* b, int) { return HalfAt(b); }
};

struct BlockBF16 {
  static constexpr int kElements = 1, kBytes = 2;
  static __device__ float At(const uint8_t* b, int) {
    return BitsToFloat(Load16(b) << 16);
  }
};

struct BlockF32 {
  static constexpr int kElements = 1, kBytes = 4;
  static __device__ float At(const uint8_t* b, int) {
    return BitsToFloat(Load16(b) | Load16(b + 2) << 16);
  }
};

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_QUANT_BLOCK_H_
