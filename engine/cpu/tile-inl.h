// The register tile of matmul.cc and attention.cc. They include this file once
// per instruction set, so it has no include guard of the usual kind.
#if defined(QKSCOPE_ENGINE_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QKSCOPE_ENGINE_CPU_TILE_INL_H_
#undef QKSCOPE_ENGINE_CPU_TILE_INL_H_
#else
#define QKSCOPE_ENGINE_CPU_TILE_INL_H_
#endif

#include <cstddef>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// The number of columns of a tile: two vectors.
HWY_ATTR inline size_t PanelWidth() { return 2 * hn::Lanes(D()); }

HWY_INLINE V Load(const float* p) { return hn::LoadU(D(), p); }
HWY_INLINE V Load(const hwy::bfloat16_t* p) {
  const hn::Rebind<hwy::bfloat16_t, D> half;
  return hn::PromoteTo(D(), hn::LoadU(half, p));
}

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

// c (kRows, kPanels * width) = [c +] a (kRows, k) x b, for kPanels panels b
// (k, width) that lie `panel_stride` apart. Each element is one chain of
// multiply-adds over k in ascending order, so its bits depend neither on kRows
// nor on kPanels. With few rows, one panel has too few chains to hide the
// latency of a multiply-add, so kPanels is more than 1.
template <int kRows, int kPanels, typename W>
HWY_INLINE void Tile(const float* HWY_RESTRICT a, size_t a_stride,
                     const W* HWY_RESTRICT b, size_t b_stride,
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
  for (size_t i = 0; i < k; ++i) {
    V weights[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = Load(b + (v / 2) * panel_stride + (v % 2) * lanes);
    }
#pragma GCC unroll 16
    for (int p = 0; p < kPanels; ++p) {
      PrefetchBehind(b + p * panel_stride, 2 * lanes * sizeof(W));
    }
    b += b_stride;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V x = hn::Set(d, a[r * a_stride + i]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        acc[r][v] = hn::MulAdd(x, weights[v], acc[r][v]);
      }
    }
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
template <typename W, int kRows = kTileRows>
HWY_INLINE void TileOf(size_t rows, const float* a, size_t a_stride, const W* b,
                       size_t b_stride, size_t k, bool add, float* c,
                       size_t c_stride) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      Tile<kRows, 1>(a, a_stride, b, b_stride, 0, k, add, c, c_stride);
    } else {
      TileOf<W, kRows - 1>(rows, a, a_stride, b, b_stride, k, add, c, c_stride);
    }
  }
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
