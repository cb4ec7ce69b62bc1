// Pairs of bf16 values multiplied by VDPBF16PS. Zen 4 and Zen 5 do so at almost
// twice the rate of float32 multiply-adds; Sapphire Rapids does not.
#include "engine/cpu/flush_subnormals.h"
#include "engine/cpu/pair_product.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

// Functions that only run where Avx512Bf16PairKernel() is not null.
#define QK_AVX512BF16 \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define QK_INLINE_AVX512BF16 QK_AVX512BF16 __attribute__((always_inline)) inline

namespace qk::cpu {
namespace {

constexpr size_t kWidth = 32;  // two vectors
constexpr int kTileRows = 12;  // 24 of 32 registers hold sums

// c (kRows, 32 kPanels), of `panel` and those after it, = a x b. With few rows,
// one panel has too few chains to hide an instruction's latency.
template <int kRows, int kPanels>
QK_INLINE_AVX512BF16 void Tile(const PairProduct& p, size_t row, size_t panel) {
  constexpr int kVectors = 2 * kPanels;
  const size_t a_stride = p.a_stride;
  const uint16_t* a = static_cast<const uint16_t*>(p.a) + row * a_stride;
  const uint16_t* b = p.b + panel * p.panel_stride;
  float* c = p.c + row * p.c_stride + panel * kWidth;
  __m512 sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = p.into == Into::kContinue
                       ? _mm512_loadu_ps(c + r * p.c_stride + v * 16)
                       : _mm512_setzero_ps();
    }
  }
  // One register for each three rows: with one for each row there are too few.
  const uint16_t* rows[(kRows + 2) / 3];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; r += 3) rows[r / 3] = a + r * a_stride;
  for (size_t i = 0; i < p.pairs; ++i) {
    __m512bh weights[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const uint16_t* from = b + (v / 2) * p.panel_stride + (v % 2) * 32;
      weights[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(from));
      // The processor's own prefetch is too late for weights that come from
      // memory and are read once.
      _mm_prefetch(reinterpret_cast<const char*>(from) + 2048, _MM_HINT_T0);
    }
    b += p.b_stride;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      int pair;
      std::memcpy(&pair, rows[r / 3] + (r % 3) * a_stride, sizeof(pair));
      const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], x, weights[v]);
      }
    }
#pragma GCC unroll 16
    for (const uint16_t*& row : rows) row += 2;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      float* to = c + r * p.c_stride + v * 16;
      __m512 sum = sums[r][v];
      if (p.bias != nullptr) {
        const float* bias = p.bias + panel * kWidth + v * 16;
        sum = _mm512_add_ps(sum, _mm512_loadu_ps(bias));
      }
      if (p.into == Into::kAdd) sum = _mm512_add_ps(sum, _mm512_loadu_ps(to));
      _mm512_storeu_ps(to, sum);
    }
  }
}

// A tile of at most kTileRows rows.
template <int kRows = kTileRows>
QK_INLINE_AVX512BF16 void TileOf(size_t rows, const PairProduct& p, size_t row,
                                 size_t panel) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      Tile<kRows, 1>(p, row, panel);
    } else {
      TileOf<kRows - 1>(rows, p, row, panel);
    }
  }
}

// As many whole groups of panels as there are; returns the first that is left.
template <int kRows, int kPanels>
QK_AVX512BF16 size_t FewRows(const PairProduct& p) {
  size_t panel = 0;
  for (; panel + kPanels <= p.panels; panel += kPanels) {
    Tile<kRows, kPanels>(p, 0, panel);
  }
  return panel;
}

QK_AVX512BF16 void Multiply(const PairProduct& p) {
  const FlushSubnormals flush;  // for the sums that are added at the end
  size_t panel = 0;
  if (p.rows == 1) panel = FewRows<1, 4>(p);
  if (p.rows == 2) panel = FewRows<2, 2>(p);
  for (; panel < p.panels; ++panel) {
    // Tiles have nearly equal sizes.
    size_t tiles = (p.rows + kTileRows - 1) / kTileRows;
    for (size_t row = 0; tiles > 0; --tiles) {
      const size_t n = (p.rows - row + tiles - 1) / tiles;
      TileOf(n, p, row, panel);
      row += n;
    }
  }
}

QK_AVX512BF16 void Round(const float* x, size_t n, void* out) {
  auto* to = static_cast<uint16_t*>(out);
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const auto half =
        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(x + i)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), half);
  }
  const auto mask = static_cast<__mmask16>((1u << (n - i)) - 1);
  const auto half = reinterpret_cast<__m256i>(
      _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i)));
  _mm256_mask_storeu_epi16(to + i, mask, half);
  if (n % 2 != 0) to[n] = 0;
}

}  // namespace

const PairKernel* Avx512Bf16PairKernel() {
  static const PairKernel kernel = {"AVX512BF16",     kWidth, 1,
                                    sizeof(uint16_t), Round,  Multiply};
  static const bool supported = __builtin_cpu_supports("avx512f") &&
                                __builtin_cpu_supports("avx512bw") &&
                                __builtin_cpu_supports("avx512vl") &&
                                __builtin_cpu_supports("avx512bf16");
  return supported ? &kernel : nullptr;
}

}  // namespace qk::cpu

#else

namespace qk::cpu {
const PairKernel* Avx512Bf16PairKernel() { return nullptr; }
}  // namespace qk::cpu

#endif
