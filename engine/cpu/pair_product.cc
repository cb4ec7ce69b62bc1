#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/pair_product.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>
#include <chrono>
#include <cstdint>

#include "engine/base/half.h"
#include "engine/cpu/aligned_array.h"
#include "engine/cpu/flush_subnormals.h"
#include "engine/cpu/pair_product.h"
#include "engine/cpu/tile-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {

// The kernel FMA. Its a is float32, rounded to bf16, with the second value of
// each pair first, as the chain reads it.

using DU = hn::RebindToUnsigned<D>;

// The second and the first values of `lanes` pairs.
HWY_INLINE V Second(const uint16_t* pairs) {
  const DU u;
  const auto both = hn::LoadU(u, reinterpret_cast<const uint32_t*>(pairs));
  return hn::BitCast(D(), hn::And(both, hn::Set(u, 0xffff0000u)));
}
HWY_INLINE V First(const uint16_t* pairs) {
  const DU u;
  const auto both = hn::LoadU(u, reinterpret_cast<const uint32_t*>(pairs));
  return hn::BitCast(D(), hn::ShiftLeft<16>(both));
}

// A tile like that of tile-inl.h, whose b lies in pairs.
template <int kRows, int kPanels>
QK_TILE void PairTile(const float* HWY_RESTRICT a, const uint16_t* b,
                      const PairProduct& p, const Sums& sums) {
  constexpr int kVectors = 2 * kPanels;
  const D d;
  const size_t lanes = hn::Lanes(d);
  V acc[kRows][kVectors];
  BeginSums<kRows, kVectors>(sums, acc);
  TileInput<kRows> rows(a, p.a_stride);
  for (size_t i = 0; i < p.pairs; ++i) {
#pragma GCC unroll 2
    for (int which = 0; which < 2; ++which) {
      V weights[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const uint16_t* from =
            b + (v / 2) * p.panel_stride + (v % 2) * 2 * lanes;
        weights[v] = which == 0 ? Second(from) : First(from);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const V x = hn::Set(d, rows.At(r, 2 * i, which));
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
          acc[r][v] = hn::MulAdd(x, weights[v], acc[r][v]);
        }
      }
    }
#pragma GCC unroll 16
    for (int panel = 0; panel < kPanels; ++panel) {
      PrefetchBehind(b + panel * p.panel_stride, 8 * lanes);
    }
    rows.Advance(2);
    b += p.b_stride;
  }
  EndSums<kRows, kVectors>(sums, acc);
}

template <int kRows = kTileRows>
HWY_INLINE void PairTileOf(size_t rows, const float* a, const uint16_t* b,
                           const PairProduct& p, const Sums& sums) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      PairTile<kRows, 1>(a, b, p, sums);
    } else {
      PairTileOf<kRows - 1>(rows, a, b, p, sums);
    }
  }
}

HWY_INLINE Sums SumsOf(const PairProduct& p) {
  return {p.into, p.bias, p.c, p.c_stride};
}

template <int kRows, int kPanels>
HWY_ATTR size_t FewPairRows(const PairProduct& p) {
  size_t panel = 0;
  for (; panel + kPanels <= p.panels; panel += kPanels) {
    PairTile<kRows, kPanels>(static_cast<const float*>(p.a),
                             p.b + panel * p.panel_stride, p,
                             SumsOf(p).At(0, panel * PanelWidth()));
  }
  return panel;
}

// `wide`: scratch (2 pairs, width), for a panel in float32.
HWY_ATTR void MultiplyPairs(const PairProduct& p, float* wide) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  const size_t width = PanelWidth();
  size_t panel = 0;
  if (p.rows == 1) panel = FewPairRows<1, 4>(p);
  if (p.rows == 2) panel = FewPairRows<2, 2>(p);
  // Many rows widen a panel once for all of their tiles.
  const bool widen = p.rows > size_t{3} * kTileRows;
  for (; panel < p.panels; ++panel) {
    const uint16_t* b = p.b + panel * p.panel_stride;
    for (size_t i = 0; widen && i < p.pairs; ++i) {
      float* to = wide + 2 * i * width;
      for (size_t half : {size_t{0}, lanes}) {
        const uint16_t* from = b + i * p.b_stride + 2 * half;
        hn::Store(Second(from), d, to + half);
        hn::Store(First(from), d, to + width + half);
      }
    }
    // Tiles have nearly equal sizes: 8 rows are 4 and 4, not 6 and a slow 2.
    size_t tiles = (p.rows + kTileRows - 1) / kTileRows;
    for (size_t row = 0; tiles > 0; --tiles) {
      const size_t n = (p.rows - row + tiles - 1) / tiles;
      const float* a = static_cast<const float*>(p.a) + row * p.a_stride;
      const Sums sums = SumsOf(p).At(row, panel * width);
      row += n;
      if (widen) {
        TileOf(n, a, p.a_stride, wide, width, 2 * p.pairs, sums);
      } else {
        PairTileOf(n, a, b, p, sums);
      }
    }
  }
}

// out (n) = x rounded to bf16, the values of each pair exchanged.
HWY_ATTR void RoundPairs(const float* x, size_t n, float* out) {
  size_t i = 0;
#if HWY_TARGET != HWY_SCALAR  // whose one lane has no neighbour
  const D d;
  const DU u;
  const size_t lanes = hn::Lanes(d);
  for (; i + lanes <= n; i += lanes) {
    const auto bits = RoundBits(hn::LoadU(d, x + i));
    const auto kept = hn::And(bits, hn::Set(u, 0xffff0000u));
    hn::StoreU(hn::Shuffle2301(hn::BitCast(d, kept)), d, out + i);
  }
#endif
  for (; i < n; ++i) out[i ^ 1] = FromBF16(RoundToBF16(x[i]));
  if (n % 2 != 0) out[n - 1] = 0.0f;
}

HWY_ATTR size_t PairWidth() { return PanelWidth(); }

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
namespace {

HWY_EXPORT(MultiplyPairs);
HWY_EXPORT(RoundPairs);
HWY_EXPORT(PairWidth);

void Multiply(const PairProduct& product) {
  thread_local AlignedArray<float> wide;
  thread_local size_t size = 0;
  const size_t needed = 2 * product.pairs * FmaPairKernel().width;
  if (needed > size) {
    wide = AllocateAligned<float>(needed);
    size = needed;
  }
  const FlushSubnormals flush;
  HWY_DYNAMIC_DISPATCH(MultiplyPairs)(product, wide.get());
}

void Round(const float* x, size_t n, void* out) {
  HWY_DYNAMIC_DISPATCH(RoundPairs)(x, n, static_cast<float*>(out));
}

// The seconds of a product of typical size.
double SecondsOf(const PairKernel& kernel) {
  constexpr size_t kRows = 96, kPairs = 256, kPanels = 4;
  const std::vector<float> x(2 * kPairs, 1.0f);
  std::vector<uint8_t> a(kRows * 2 * kPairs * kernel.a_bytes);
  for (size_t r = 0; r < kRows; ++r) {
    kernel.round(x.data(), x.size(),
                 a.data() + r * 2 * kPairs * kernel.a_bytes);
  }
  const size_t panel = 2 * kPairs * kernel.width;
  const std::vector<uint16_t> b(kPanels * panel, 0x3f80);  // 1.0
  std::vector<float> c(kRows * kPanels * kernel.width);
  PairProduct p;
  p.a = a.data();
  p.a_stride = 2 * kPairs;
  p.rows = kRows;
  p.b = b.data();
  p.b_stride = 2 * kernel.width;
  p.panel_stride = panel;
  p.panels = kPanels;
  p.pairs = kPairs;
  p.c = c.data();
  p.c_stride = kPanels * kernel.width;
  const auto start = std::chrono::steady_clock::now();
  kernel.multiply(p);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
             .count() /
         static_cast<double>(kernel.width);
}

const PairKernel& MeasureFastest() {
  constexpr int kRounds = 12;
  // What a kernel must gain over those before it: a chance winner would change
  // from start to start.
  constexpr double kGain = 1.2;
  const std::vector<const PairKernel*> kernels = PairKernels();
  std::vector<double> best(kernels.size(), 1e9);
  for (int round = 0; round < kRounds && kernels.size() > 1; ++round) {
    for (size_t i = 0; i < kernels.size(); ++i) {
      best[i] = std::min(best[i], SecondsOf(*kernels[i]));
    }
  }
  size_t fastest = 0;
  for (size_t i = 1; i < kernels.size(); ++i) {
    if (best[i] * kGain < best[fastest]) fastest = i;
  }
  return *kernels[fastest];
}

}  // namespace

const PairKernel& FmaPairKernel() {
  static const PairKernel kernel = {"FMA", HWY_DYNAMIC_DISPATCH(PairWidth)(),
                                    1,     sizeof(float),
                                    Round, Multiply};
  return kernel;
}

std::vector<const PairKernel*> PairKernels() {
  std::vector<const PairKernel*> kernels = {&FmaPairKernel()};
  for (const PairKernel* kernel : {Avx512Bf16PairKernel(), AmxPairKernel()}) {
    if (kernel != nullptr) kernels.push_back(kernel);
  }
  return kernels;
}

const PairKernel& FastestPairKernel() {
  static const PairKernel& fastest = MeasureFastest();
  return fastest;
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
