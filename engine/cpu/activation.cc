#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/activation.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>

#include "engine/check.h"
#include "engine/cpu/kernels.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class DF, class VF>
HWY_INLINE VF SiluTimes(DF d, VF gate, VF up) {
  const VF one = hn::Set(d, 1.0f);
  const VF sigmoid = hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(gate))));
  // Exp is wrong where its result is over float32's range; there the product
  // vanishes. A NaN stays one.
  const VF kept = hn::IfThenElseZero(hn::Ge(gate, hn::Set(d, -88.0f)), sigmoid);
  return hn::Mul(hn::Mul(gate, kept), up);
}

HWY_ATTR void GatedSilu(float* HWY_RESTRICT gate, const float* HWY_RESTRICT up,
                        size_t n) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(SiluTimes(d, hn::LoadU(d, gate + i), hn::LoadU(d, up + i)), d,
               gate + i);
  }
  // The same vector operations for the tail: an element's bits must not depend
  // on where it stands.
  if (i == n) return;
  HWY_ALIGN float g[HWY_MAX_BYTES / sizeof(float)] = {};
  HWY_ALIGN float u[HWY_MAX_BYTES / sizeof(float)] = {};
  std::copy(gate + i, gate + n, g);
  std::copy(up + i, up + n, u);
  hn::Store(SiluTimes(d, hn::Load(d, g), hn::Load(d, u)), d, g);
  std::copy(g, g + (n - i), gate + i);
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
HWY_EXPORT(GatedSilu);

namespace {
constexpr int64_t kChunk = 16384;
}  // namespace

void GatedActivation(float* gate, const float* up, int64_t n,
                     Activation activation, ThreadPool& pool) {
  QK_CHECK(activation == Activation::kSilu);
  pool.For((n + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    const int64_t begin = chunk * kChunk;
    HWY_DYNAMIC_DISPATCH(GatedSilu)
    (gate + begin, up + begin, std::min(kChunk, n - begin));
  });
}

void Add(float* x, const float* y, int64_t n, ThreadPool& pool) {
  pool.For((n + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min(n, (chunk + 1) * kChunk);
    for (int64_t i = chunk * kChunk; i < end; ++i) x[i] += y[i];
  });
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
