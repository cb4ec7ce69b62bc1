// Softmax over a tile of keys, for attention_task.cc, which includes this file
// once per instruction set, so it has no include guard of the usual kind.
#if defined(QKSCOPE_ENGINE_CPU_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QKSCOPE_ENGINE_CPU_SOFTMAX_INL_H_
#undef QKSCOPE_ENGINE_CPU_SOFTMAX_INL_H_
#else
#define QKSCOPE_ENGINE_CPU_SOFTMAX_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "engine/cpu/attention_task.h"
#include "engine/cpu/tile-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {

HWY_INLINE V SoftCap(V x, float cap) {
  const D d;
  const V y = hn::Tanh(d, hn::Div(x, hn::Set(d, cap)));
  // Highway's Tanh turns a NaN into a number; here it must stay NaN.
  return hn::IfThenElse(hn::Eq(x, x), hn::Mul(hn::Set(d, cap), y), x);
}

// 2^x for x of at most about 0, within 2e-7 of itself; 0 below 2^-126. NaN
// stays NaN.
HWY_INLINE V PowerOfTwo(V x) {
  const D d;
  const hn::RebindToSigned<D> i;
  // Adding this rounds to a whole number, which then lies in the lowest bits.
  const V shift = hn::Set(d, 12582912.0f);
  const V shifted = hn::Add(x, shift);
  const V fraction = hn::Sub(x, hn::Sub(shifted, shift));
  // Least maximum error over [-0.5, 0.5], with 1 at 0.
  V p = hn::Set(d, 1.32647273e-3f);
  p = hn::MulAdd(p, fraction, hn::Set(d, 9.67151299e-3f));
  p = hn::MulAdd(p, fraction, hn::Set(d, 5.55073358e-2f));
  p = hn::MulAdd(p, fraction, hn::Set(d, 2.40222424e-1f));
  p = hn::MulAdd(p, fraction, hn::Set(d, 6.93147004e-1f));
  p = hn::MulAdd(p, fraction, hn::Set(d, 1.0f));
  const auto exponent =
      hn::ShiftLeft<23>(hn::Add(hn::BitCast(i, shifted), hn::Set(i, 127)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)),
                            hn::Mul(p, hn::BitCast(d, exponent)));
}

constexpr size_t kSoftmaxStep = 32;  // at least a vector

// Turns the scores s (n) of one row into weights, 0 for keys that it does not
// see, updates the row's maximum and its sums of weights, and returns the
// factor that rescales the sums so far. n is a multiple of kSoftmaxStep.
HWY_INLINE float SoftmaxRow(float* s, size_t n, Seen seen,
                            const AttentionTask& t, float& max, float* sums) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  const D d;
  const size_t lanes = hn::Lanes(d);
  float scale = t.scale;  // positive, so that it may follow the maximum
  if (t.softcap > 0) {
    for (size_t i = 0; i < n; i += lanes) {
      const V x = hn::Mul(hn::LoadU(d, s + i), hn::Set(d, scale));
      hn::StoreU(SoftCap(x, t.softcap), d, s + i);
    }
    scale = 1;
  }
  std::fill_n(s, seen.begin, kLowest);
  std::fill(s + seen.end, s + n, kLowest);
  V top = hn::Set(d, max);
  for (size_t i = 0; i < n; i += lanes) top = hn::Max(top, hn::LoadU(d, s + i));
  const float new_max = hn::GetLane(hn::MaxOfLanes(d, top));
  // Without a score yet, all weights are 0.
  const bool none = new_max == kLowest;
  const V power = hn::Set(d, scale * kLog2E);
  const V base = hn::Set(d, none ? 0.0f : -new_max * (scale * kLog2E));
  V total = hn::Zero(d);
  for (size_t i = 0; i < n; i += lanes) {
    const V weight = PowerOfTwo(hn::MulAdd(hn::LoadU(d, s + i), power, base));
    total = hn::Add(total, weight);
    hn::StoreU(weight, d, s + i);
  }
  const float factor =
      max == new_max ? 1.0f : std::exp((max - new_max) * scale);
  max = new_max;
  hn::StoreU(hn::MulAdd(hn::LoadU(d, sums), hn::Set(d, factor), total), d,
             sums);
  return factor;
}

HWY_INLINE void ScaleRow(float* o, size_t n, float factor) {
  const D d;
  for (size_t i = 0; i < n; i += hn::Lanes(d)) {
    hn::StoreU(hn::Mul(hn::LoadU(d, o + i), hn::Set(d, factor)), d, o + i);
  }
}

// Whether none of n values is infinite or NaN.
HWY_INLINE bool AllFinite(const float* x, size_t n) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  V zeros = hn::Zero(d);  // 0 times anything else is NaN
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    zeros = hn::MulAdd(hn::LoadU(d, x + i), hn::Zero(d), zeros);
  }
  float all = hn::GetLane(hn::SumOfLanes(d, zeros));
  for (; i < n; ++i) all += x[i] * 0.0f;
  return all == 0.0f;
}
HWY_INLINE bool AllFinite(const uint16_t* x, size_t n) {
  const hn::ScalableTag<uint16_t> d;
  const size_t lanes = hn::Lanes(d);
  const auto exponent = hn::Set(d, uint16_t{0x7f80});
  auto largest = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    largest = hn::Max(largest, hn::And(hn::LoadU(d, x + i), exponent));
  }
  bool finite = hn::AllFalse(d, hn::Eq(largest, exponent));
  for (; i < n; ++i) finite = finite && (x[i] & 0x7f80) != 0x7f80;
  return finite;
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
