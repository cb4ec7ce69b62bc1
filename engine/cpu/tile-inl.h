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

#include "engine/cpu/panels.h"
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

// The rows of a tile, read along k. A loop that keeps a pointer to each of 12
// rows has too few registers; then each third row has one, which moves on.
template <int kRows>
class TileInput {
 public:
  HWY_INLINE TileInput(const float* a, size_t stride) : stride_(stride) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; r += kStep) first_[r / kStep] = a + r * stride;
  }
  // The value at k + ahead, after steps to k.
  HWY_INLINE float At(int row, size_t k, size_t ahead = 0) const {
    return kMoves ? first_[row / kStep][(row % kStep) * stride_ + ahead]
                  : first_[row][k + ahead];
  }
  HWY_INLINE void Advance(size_t n) {
    if (!kMoves) return;
#pragma GCC unroll 16
    for (const float*& row : first_) row += n;
  }

 private:
  static constexpr bool kMoves = kRows > 6;
  static constexpr int kStep = kMoves ? 3 : 1;
  const float* first_[(kRows + kStep - 1) / kStep];
  const size_t stride_;
};

// Where a tile's sums go: c and its stride, bias like a row of c, or null.
struct Sums {
  Into into;
  const float* bias;
  float* c;
  size_t stride;
  Sums At(size_t row, size_t column) const {
    return {into, bias == nullptr ? nullptr : bias + column,
            c + row * stride + column, stride};
  }
};

template <int kRows, int kVectors>
HWY_INLINE void BeginSums(const Sums& sums, V (&acc)[kRows][kVectors]) {
  const D d;
  const size_t lanes = hn::Lanes(d);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = sums.into == Into::kContinue
                      ? hn::LoadU(d, sums.c + r * sums.stride + v * lanes)
                      : hn::Zero(d);
    }
  }
}

template <int kRows, int kVectors>
HWY_INLINE void EndSums(const Sums& sums, V (&acc)[kRows][kVectors]) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  const auto for_all = [&](auto op) HWY_ATTR {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        op(acc[r][v], sums.c + r * sums.stride + v * lanes, v * lanes);
      }
    }
  };
  if (sums.bias != nullptr) {
    for_all([&](V& sum, float*, size_t column) HWY_ATTR {
      sum = hn::Add(sum, hn::LoadU(d, sums.bias + column));
    });
  }
  if (sums.into == Into::kAdd) {
    for_all([&](V sum, float* c, size_t)
                HWY_ATTR { hn::StoreU(hn::Add(sum, hn::LoadU(d, c)), d, c); });
    return;
  }
  for_all([&](V sum, float* c, size_t) HWY_ATTR { hn::StoreU(sum, d, c); });
}

// With tiles of 12 rows, a caller's values must not take registers from the
// loop (tests/engine/cpu/tile_loops.py). With 6 a call costs more than that.
#undef QK_TILE
#if HWY_TARGET <= HWY_AVX3
#define QK_TILE HWY_NOINLINE HWY_ATTR
#else
#define QK_TILE HWY_INLINE
#endif

// The sums of a (kRows, k) x b, for kPanels panels b (k, width) that lie
// `panel_stride` apart. Each element is one chain of multiply-adds over k in
// ascending order, so its bits depend neither on kRows nor on kPanels. With few
// rows, one panel has too few chains to hide the latency of a multiply-add, so
// kPanels is more than 1.
template <int kRows, int kPanels>
QK_TILE void Tile(const float* HWY_RESTRICT a, size_t a_stride,
                  const float* HWY_RESTRICT b, size_t b_stride,
                  size_t panel_stride, size_t k, const Sums& sums) {
  constexpr int kVectors = 2 * kPanels;
  const D d;
  const size_t lanes = hn::Lanes(d);
  V acc[kRows][kVectors];
  BeginSums<kRows, kVectors>(sums, acc);
  TileInput<kRows> rows(a, a_stride);
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
      const V x = hn::Set(d, rows.At(r, i));
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        acc[r][v] = hn::MulAdd(x, weights[v], acc[r][v]);
      }
    }
    rows.Advance(1);
  }
  EndSums<kRows, kVectors>(sums, acc);
}

#if HWY_TARGET <= HWY_AVX3
constexpr int kTileRows = 12;  // for 32 vector registers
#else
constexpr int kTileRows = 6;  // for 16 vector registers
#endif

// Runs a tile whose number of rows, at most kTileRows, is known at run time.
template <int kRows = kTileRows>
HWY_INLINE void TileOf(size_t rows, const float* a, size_t a_stride,
                       const float* b, size_t b_stride, size_t k,
                       const Sums& sums) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      Tile<kRows, 1>(a, a_stride, b, b_stride, 0, k, sums);
    } else {
      TileOf<kRows - 1>(rows, a, a_stride, b, b_stride, k, sums);
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

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
