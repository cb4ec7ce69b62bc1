// The product of pair_product.h by tiles of at most 16 x 16 sums, as AMX has
// them. Tiles is the processor's own (pair_product_amx.cc), or a model of it in
// tests:
//
//   Configure(TileRows): the rows of tiles 0 to 5; tiles 6 and 7 have 16. A row
//     is 64 bytes. All tiles become 0.
//   Zero<t>(); Load<t>(address, bytes from row to row); Store<t>(the same)
//   Dot<c, a, b>(): c (rows, 16) float32 += a (rows, 16 pairs) x b (16 pairs,
//     16), in bf16 (TDPBF16PS)
//
// An element's chain is one Dot after another over k, 32 values at a time. The
// rows beside it and the columns have no part in it.
#ifndef QKSCOPE_ENGINE_CPU_TILES_PRODUCT_H_
#define QKSCOPE_ENGINE_CPU_TILES_PRODUCT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/cpu/pair_product.h"

namespace qk::cpu {

inline constexpr size_t kTileSide = 16;    // rows; and float32 in a row
inline constexpr size_t kTilesWidth = 32;  // columns of a panel: two tiles
inline constexpr size_t kTilePairs = 16;   // of bf16 in a row
inline constexpr size_t kTileRowBytes = 64;

// The rows of the upper tiles of sums and of a, and of the lower ones; lower 0:
// they are not used.
struct TileRows {
  size_t upper = 0;
  size_t lower = 0;
};

// c (rows, kTilesWidth) = [c +] sums [+ bias].
inline void EndSums(const PairProduct& p, size_t rows, const float* sums,
                    const float* bias, float* c) {
  for (size_t r = 0; r < rows; ++r) {
    float* to = c + r * p.c_stride;
    for (size_t j = 0; j < kTilesWidth; ++j) {
      float sum = sums[r * kTilesWidth + j];
      if (bias != nullptr) sum += bias[j];
      to[j] = p.into == Into::kAdd ? to[j] + sum : sum;
    }
  }
}

// Tiles 0 and 1 are the sums of the upper rows, 2 and 3 those of the lower
// ones, 4 and 5 rows of a, 6 and 7 columns of b.
template <bool kLower, typename Tiles>
void TimesPanel(Tiles& tiles, const PairProduct& p, TileRows rows,
                const uint16_t* a, const uint16_t* b, const float* bias,
                float* c) {
  const size_t a_bytes = p.a_stride * sizeof(uint16_t);
  const size_t b_bytes = p.b_stride * sizeof(uint16_t);
  if (p.into == Into::kContinue) {
    const size_t c_bytes = p.c_stride * sizeof(float);
    tiles.template Load<0>(c, c_bytes);
    tiles.template Load<1>(c + kTileSide, c_bytes);
    if constexpr (kLower) {
      const float* lower = c + kTileSide * p.c_stride;
      tiles.template Load<2>(lower, c_bytes);
      tiles.template Load<3>(lower + kTileSide, c_bytes);
    }
  } else {
    tiles.template Zero<0>();
    tiles.template Zero<1>();
    if constexpr (kLower) {
      tiles.template Zero<2>();
      tiles.template Zero<3>();
    }
  }
  for (size_t i = 0; i < p.pairs; i += kTilePairs) {
    const uint16_t* from = b + i * p.b_stride;
    tiles.template Load<4>(a + 2 * i, a_bytes);
    tiles.template Load<6>(from, b_bytes);
    tiles.template Load<7>(from + 2 * kTileSide, b_bytes);
    tiles.template Dot<0, 4, 6>();
    tiles.template Dot<1, 4, 7>();
    if constexpr (kLower) {
      tiles.template Load<5>(a + kTileSide * p.a_stride + 2 * i, a_bytes);
      tiles.template Dot<2, 5, 6>();
      tiles.template Dot<3, 5, 7>();
    }
  }
  const bool plain = bias == nullptr && p.into != Into::kAdd;
  alignas(64) float sums[2 * kTileSide * kTilesWidth];
  float* to = plain ? c : sums;
  const size_t stride = plain ? p.c_stride : kTilesWidth;
  const size_t bytes = stride * sizeof(float);
  tiles.template Store<0>(to, bytes);
  tiles.template Store<1>(to + kTileSide, bytes);
  if constexpr (kLower) {
    float* lower = to + kTileSide * stride;
    tiles.template Store<2>(lower, bytes);
    tiles.template Store<3>(lower + kTileSide, bytes);
  }
  if (!plain) EndSums(p, rows.upper + rows.lower, sums, bias, c);
}

// Rows go outside: 32 rows of a stay in the first cache while b streams by.
template <typename Tiles>
void MultiplyByTiles(Tiles& tiles, const PairProduct& p) {
  constexpr size_t kRows = 2 * kTileSide;
  for (size_t row = 0; row < p.rows; row += kRows) {
    const size_t n = std::min(kRows, p.rows - row);
    const TileRows rows = {std::min(n, kTileSide),
                           n > kTileSide ? n - kTileSide : 0};
    tiles.Configure(rows);
    const uint16_t* a = static_cast<const uint16_t*>(p.a) + row * p.a_stride;
    for (size_t panel = 0; panel < p.panels; ++panel) {
      const uint16_t* b = p.b + panel * p.panel_stride;
      const size_t column = panel * kTilesWidth;
      const float* bias = p.bias == nullptr ? nullptr : p.bias + column;
      float* c = p.c + row * p.c_stride + column;
      if (rows.lower > 0) {
        TimesPanel<true>(tiles, p, rows, a, b, bias, c);
      } else {
        TimesPanel<false>(tiles, p, rows, a, b, bias, c);
      }
    }
  }
}

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_TILES_PRODUCT_H_
