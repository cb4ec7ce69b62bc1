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
// Multiplies all rows of a block by one panel with `width` valid columns.
HWY_ATTR void BlockTimesPanel(const float* a, size_t a_stride, size_t rows,
                              const float* panel, size_t k, bool add,
                              size_t width, float* c, size_t c_stride) {
  const size_t full = 2 * hn::Lanes(D());
  HWY_ALIGN float edge[kTileRows * 2 * HWY_MAX_BYTES / sizeof(float)];
  // Tiles have nearly equal sizes: 8 rows are 4 and 4, not 6 and a slow 2.
  size_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (size_t r = 0; tiles > 0; --tiles) {
    const size_t n = (rows - r + tiles - 1) / tiles;
    const float* x = a + r * a_stride;
    float* out = c + r * c_stride;
    r += n;
    if (width == full) {
      TileOf(n, x, a_stride, panel, full, k, add, out, c_stride);
      continue;
    }
    for (size_t i = 0; add && i < n; ++i) {
      std::memcpy(edge + i * full, out + i * c_stride, width * sizeof(float));
    }
    TileOf(n, x, a_stride, panel, full, k, add, edge, full);
    for (size_t i = 0; i < n; ++i) {
      std::memcpy(out + i * c_stride, edge + i * full, width * sizeof(float));
    }
  }
}

// Multiplies by several full panels at once if rows are few. Returns the first
// panel that is left.
HWY_ATTR size_t FewRows(const float* a, size_t a_stride, size_t rows,
                        const float* weights, const PanelRange& range,
                        float* out) {
  const size_t width = PanelWidth();
  const size_t stride = range.k_total * width;
  const size_t last = std::min(range.last, range.n / width);
  const bool add = range.k > 0;
  const auto run = [&](auto tile, size_t panels) HWY_ATTR {
    size_t p = range.first;
    for (; p + panels <= last; p += panels) {
      tile(weights + p * stride + range.k * width, out + p * width);
    }
    return p;
  };
  if (rows == 1) {
    return run(
        [&](const float* b, float* c) HWY_ATTR {
          Tile<1, 4>(a, a_stride, b, width, stride, range.depth, add, c,
                     range.n);
        },
        4);
  }
  if (rows == 2) {
    return run(
        [&](const float* b, float* c) HWY_ATTR {
          Tile<2, 2>(a, a_stride, b, width, stride, range.depth, add, c,
                     range.n);
        },
        2);
  }
  return range.first;
}

HWY_ATTR void BlockF32(const float* a, size_t a_stride, size_t rows,
                       const float* weights, const PanelRange& range,
                       float* out) {
  const size_t width = PanelWidth();
  size_t p = FewRows(a, a_stride, rows, weights, range, out);
  for (; p < range.last; ++p) {
    const float* panel = weights + (p * range.k_total + range.k) * width;
    BlockTimesPanel(a, a_stride, rows, panel, range.depth, range.k > 0,
                    std::min(width, range.n - p * width), out + p * width,
                    range.n);
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
                   const float* weights, const PanelRange& range, float* out) {
  HWY_DYNAMIC_DISPATCH(BlockF32)(a, a_stride, rows, weights, range, out);
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
