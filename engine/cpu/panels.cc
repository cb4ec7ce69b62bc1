#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/panels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>
#include <cstring>

#include "engine/cpu/panels.h"
#include "engine/cpu/tile-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {
// Multiplies by several panels at once if rows are few. Returns the first panel
// that is left.
template <int kRows, int kPanels>
HWY_ATTR size_t FewRows(const float* a, size_t a_stride, const float* weights,
                        const PanelRange& range, const Sums& sums) {
  const size_t width = PanelWidth();
  const size_t stride = range.k_total * width;
  size_t p = range.first;
  for (; p + kPanels <= range.last; p += kPanels) {
    Tile<kRows, kPanels>(a, a_stride, weights + p * stride + range.k * width,
                         width, stride, range.depth,
                         sums.At(0, (p - range.first) * width));
  }
  return p;
}

HWY_ATTR void BlockF32(const float* a, size_t a_stride, size_t rows,
                       const float* weights, const PanelRange& range, Into into,
                       const float* bias, float* c, size_t c_stride) {
  const size_t width = PanelWidth();
  const Sums sums = {into, bias, c, c_stride};
  size_t p = range.first;
  if (rows == 1) p = FewRows<1, 4>(a, a_stride, weights, range, sums);
  if (rows == 2) p = FewRows<2, 2>(a, a_stride, weights, range, sums);
  for (; p < range.last; ++p) {
    const float* panel = weights + (p * range.k_total + range.k) * width;
    // Tiles have nearly equal sizes: 8 rows are 4 and 4, not 6 and a slow 2.
    size_t tiles = (rows + kTileRows - 1) / kTileRows;
    for (size_t row = 0; tiles > 0; --tiles) {
      const size_t n = (rows - row + tiles - 1) / tiles;
      TileOf(n, a + row * a_stride, a_stride, panel, width, range.depth,
             sums.At(row, (p - range.first) * width));
      row += n;
    }
  }
}

// Calls store(begin, n, square) for squares (n, width), n at most 16, of the
// transposed rows (width, k), one after another. The rows of most models lie a
// power of two apart and so compete for the same few lines of the cache.
template <typename Store>
HWY_ATTR void ForSquares(const float* rows, size_t k, size_t width,
                         const Store& store) {
  constexpr size_t kSide = 16;
  // A kernel for bf16 may have wider panels than this instruction set.
  constexpr size_t kWidest = 32;
  HWY_ALIGN float square[kSide * kWidest];
  for (size_t begin = 0; begin < k; begin += kSide) {
    const size_t n = std::min(kSide, k - begin);
    for (size_t j = 0; j < width; ++j) {
      for (size_t i = 0; i < n; ++i) {
        square[i * width + j] = rows[j * k + begin + i];
      }
    }
    store(begin, n, square);
  }
}

// Transposes rows (panel width, k) into a panel (k, panel width).
HWY_ATTR void PackPanelF32(const float* rows, size_t k, float* panel) {
  const size_t width = PanelWidth();
  ForSquares(rows, k, width, [&](size_t begin, size_t n, const float* square) {
    std::memcpy(panel + begin * width, square, n * width * sizeof(float));
  });
}

// The same in bf16, in pairs: (pairs, width, 2), with zeros after k.
HWY_ATTR void PackPanelBF16(const float* rows, size_t k, size_t width,
                            size_t pairs, uint16_t* panel) {
  const D d;
  const hn::RebindToUnsigned<D> u;
  ForSquares(rows, k, width,
             [&](size_t begin, size_t n, float* square) HWY_ATTR {
               if (n % 2 != 0) std::fill_n(square + n * width, width, 0.0f);
               auto* to = reinterpret_cast<uint32_t*>(panel + begin * width);
               for (size_t i = 0; i < n; i += 2, to += width) {
                 const float* first = square + i * width;
                 for (size_t j = 0; j < width; j += hn::Lanes(d)) {
                   const auto low = RoundBits(hn::Load(d, first + j));
                   const auto high = RoundBits(hn::Load(d, first + width + j));
                   hn::StoreU(hn::Or(hn::ShiftRight<16>(low),
                                     hn::And(high, hn::Set(u, 0xffff0000u))),
                              u, to + j);
                 }
               }
             });
  const size_t used = (k + 1) / 2;
  std::fill_n(panel + used * width * 2, (pairs - used) * width * 2, 0);
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {

HWY_EXPORT(PanelWidth);
HWY_EXPORT(BlockF32);
HWY_EXPORT(PackPanelF32);
HWY_EXPORT(PackPanelBF16);

size_t F32PanelWidth() { return HWY_DYNAMIC_DISPATCH(PanelWidth)(); }

void MultiplyBlock(const float* a, size_t a_stride, size_t rows,
                   const float* weights, const PanelRange& range, Into into,
                   const float* bias, float* c, size_t c_stride) {
  HWY_DYNAMIC_DISPATCH(BlockF32)
  (a, a_stride, rows, weights, range, into, bias, c, c_stride);
}

void PackPanel(const float* rows, size_t k, float* panel) {
  HWY_DYNAMIC_DISPATCH(PackPanelF32)(rows, k, panel);
}

void PackPairPanel(const float* rows, size_t k, size_t width, size_t pairs,
                   uint16_t* panel) {
  HWY_DYNAMIC_DISPATCH(PackPanelBF16)(rows, k, width, pairs, panel);
}

std::string HighwayTarget() {
  HWY_DYNAMIC_DISPATCH(PanelWidth)();  // selects the target
  const int64_t supported = hwy::SupportedTargets();
  return hwy::TargetName(supported & -supported);
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
