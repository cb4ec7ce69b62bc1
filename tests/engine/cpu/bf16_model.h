// What the processors' instructions for bf16 compute, written out: the oracle
// of the kernels for pairs, and a stand-in for AMX where there is none.
#ifndef QKSCOPE_TESTS_ENGINE_CPU_BF16_MODEL_H_
#define QKSCOPE_TESTS_ENGINE_CPU_BF16_MODEL_H_

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "engine/base/half.h"
#include "engine/cpu/pair_product.h"
#include "engine/cpu/tiles_product.h"
#include "gtest/gtest.h"

namespace qk::testing {

// x, or the zero of its sign if it is subnormal.
inline float Flush(float x) {
  return std::abs(x) < std::numeric_limits<float>::min()
             ? std::copysign(0.0f, x)
             : x;
}

// sum + a b with one rounding; subnormal numbers count as zero.
inline float FusedMultiplyAdd(float a, float b, float sum) {
  return Flush(std::fma(Flush(a), Flush(b), Flush(sum)));
}

// VDPBF16PS (Intel's Software Developer's Manual, volume 2): the second
// product of a pair is added first.
inline float DotPair(float sum, const uint16_t a[2], const uint16_t b[2]) {
  sum = FusedMultiplyAdd(FromBF16(a[1]), FromBF16(b[1]), sum);
  return FusedMultiplyAdd(FromBF16(a[0]), FromBF16(b[0]), sum);
}

// AMX's tiles and TDPBF16PS, as the manual has them: the first and the second
// values of all pairs have a sum each, which then are added.
class ModelTiles {
 public:
  void Configure(cpu::TileRows rows) {
    std::memset(bytes_, 0, sizeof(bytes_));
    for (int tile : {0, 1, 4}) rows_[tile] = rows.upper;
    for (int tile : {2, 3, 5}) rows_[tile] = rows.lower;
    for (int tile : {6, 7}) rows_[tile] = cpu::kTileSide;
    EXPECT_TRUE(rows.upper > 0 && rows.upper <= cpu::kTileSide);
    EXPECT_LE(rows.lower, cpu::kTileSide);
  }
  template <int kTile>
  void Zero() {
    std::memset(bytes_[kTile], 0, sizeof(bytes_[kTile]));
  }
  template <int kTile>
  void Load(const void* from, size_t stride) {
    EXPECT_GT(rows_[kTile], 0u);
    for (size_t r = 0; r < rows_[kTile]; ++r) {
      std::memcpy(bytes_[kTile][r],
                  static_cast<const uint8_t*>(from) + r * stride,
                  cpu::kTileRowBytes);
    }
  }
  template <int kTile>
  void Store(void* to, size_t stride) {
    EXPECT_GT(rows_[kTile], 0u);
    for (size_t r = 0; r < rows_[kTile]; ++r) {
      std::memcpy(static_cast<uint8_t*>(to) + r * stride, bytes_[kTile][r],
                  cpu::kTileRowBytes);
    }
  }
  template <int kSums, int kA, int kB>
  void Dot() {
    EXPECT_EQ(rows_[kSums], rows_[kA]);
    DotTiles(bytes_[kSums], bytes_[kA], bytes_[kB], rows_[kSums]);
  }

 private:
  using Tile = uint8_t[cpu::kTileSide][cpu::kTileRowBytes];
  static void DotTiles(Tile& sums, const Tile& a, const Tile& b, size_t rows);

  size_t rows_[8] = {};
  Tile bytes_[8] = {};
};

// The kernel AMX on ModelTiles.
const cpu::PairKernel& TilesModelKernel();

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_ENGINE_CPU_BF16_MODEL_H_
