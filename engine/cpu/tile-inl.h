// The register tile of float32, and rounding to bf16. The files that use them
// include this one once per instruction set, so it has no include guard of the
// usual kind.
#if defined(QKSCOPE_ENGINE_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QKSCOPE_ENGINE_CPU_TILE_INL_H_
#undef QKSCOPE_ENGINE_CPU_TILE_INL_H_
#else
#define QKSCOPE_ENGINE_CPU_TILE_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// The number of columns of a tile: two vectors.
HWY_ATTR inline size_t PanelWidth() { return 2 * hn::Lanes(D()); }

// Prefetches the `bytes` that lie kAhead bytes after p. The processor's own
// prefetch is too late for a panel that comes from memory and is read once; a
// panel that is in a cache loses next to nothing.
HWY_INLINE void PrefetchBehind(const void* p, size_t bytes) {
  constexpr size_t kAhead = 2048;
  constexpr size_t kLine = 64;
  for (size_t i = 0; i < bytes; i += kLine) {
    hwy::Prefetch(static_cast<const char*>(p) + kAhead + i);
  }
}

// Every third row of a tile. A loop over k that has a register for each of 12
// rows runs out of them.
template <int kRows>
HWY_INLINE void FirstOfThree(const float* a, size_t a_stride,
                             const float* (&rows)[(kRows + 2) / 3]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r += 3) rows[r / 3] = a + r * a_stride;
}

// c (kRows, kPanels * width) = [c +] a (kRows, k) x b, for kPanels panels b
// (k, width) that lie `panel_stride` apart. Each element is one chain of
// multiply-adds over k in ascending order, so its bits depend neither on kRows
// nor on kPanels. With few rows, one panel has too few chains to hide the
// latency of a multiply-add, so kPanels is more than 1.
template <int kRows, int kPanels>
HWY_INLINE void Tile(const float* HWY_RESTRICT a, size_t a_stride,
                     const float* HWY_RESTRICT b, size_t b_stride,
                     size_t panel_stride, size_t k, bool add,
                     float* HWY_RESTRICT c, size_t c_stride) {
  constexpr int kVectors = 2 * kPanels;
  const D d;
  const size_t lanes = hn::Lanes(d);
  V acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] =
          add ? hn::LoadU(d, c + r * c_stride + v * lanes) : hn::Zero(d);
    }
  }
  const float* rows[(kRows + 2) / 3];
  FirstOfThree<kRows>(a, a_stride, rows);
  for (size_t i = 0; i < k; ++i) {
    V weights[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = hn::LoadU(d, b + (v / 2) * panel_stride + (v % 2) * lanes);
    }
#pragma GCC unroll 16
    for (int p = 0; p < kPanels; ++p) {
      PrefetchBehind(b + p * panel_stride, 2 * lanes * sizeof(float));
    }
    b += b_stride;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V x = hn::Set(d, rows[r / 3][(r % 3) * a_stride]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        acc[r][v] = hn::MulAdd(x, weights[v], acc[r][v]);
      }
    }
#pragma GCC unroll 16
    for (const float*& row : rows) ++row;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(acc[r][v], d, c + r * c_stride + v * lanes);
    }
  }
}

#if HWY_TARGET <= HWY_AVX3
constexpr int kTileRows = 12;  // for 32 vector registers
#else
constexpr int kTileRows = 6;  // for 16 vector registers
#endif

// Runs a tile whose number of rows, at most kTileRows, is known at run time.
template <int kRows = kTileRows>
HWY_INLINE void TileOf(size_t rows, const float* a, size_t a_stride,
                       const float* b, size_t b_stride, size_t k, bool add,
                       float* c, size_t c_stride) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      Tile<kRows, 1>(a, a_stride, b, b_stride, 0, k, add, c, c_stride);
    } else {
      TileOf<kRows - 1>(rows, a, a_stride, b, b_stride, k, add, c, c_stride);
    }
  }
}

// Rounds the upper half of x's bits to the nearest bf16, ties to even. NaN
// stays NaN.
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> RoundBits(V x) {
  const hn::RebindToUnsigned<D> u;
  const auto bits = hn::BitCast(u, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1u));
  const auto up = hn::Add(bits, hn::Add(odd, hn::Set(u, 0x7fffu)));
  return hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(x)),
                        hn::Or(bits, hn::Set(u, 0x400000u)), up);
}

// pairs (n, 2) = two rows of n bf16 values, side by side. odd may be null:
// zeros.
HWY_INLINE void InterleaveRows(const uint16_t* even, const uint16_t* odd,
                               size_t n, uint16_t* pairs) {
  const hn::ScalableTag<uint16_t> d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto second = odd == nullptr ? hn::Zero(d) : hn::LoadU(d, odd + i);
    hn::StoreInterleaved2(hn::LoadU(d, even + i), second, d, pairs + 2 * i);
  }
  for (; i < n; ++i) {
    pairs[2 * i] = even[i];
    pairs[2 * i + 1] = odd == nullptr ? 0 : odd[i];
  }
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
