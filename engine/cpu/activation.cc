#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/activation.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>

#include "engine/cpu/kernels.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

HWY_INLINE V Constant(float value) { return hn::Set(D(), value); }

// Highway's functions turn a NaN into a number. This keeps the NaN.
HWY_INLINE V KeepNan(V x, V y) { return hn::IfThenElse(hn::Eq(x, x), y, x); }

HWY_INLINE V TanhOf(V x) { return KeepNan(x, hn::Tanh(D(), x)); }

// erf(x) by a rational function, within 4e-7 everywhere.
HWY_INLINE V ErfOf(V x) {
  const V limit = Constant(4.0f);
  const V c = hn::Max(hn::Min(x, limit), hn::Neg(limit));
  const V s = hn::Mul(c, c);
  V p = Constant(-2.72614225801306e-10f);
  for (float a : {2.77068142495902e-08f, -2.10102402082508e-06f,
                  -5.69250639462346e-05f, -7.34990630326855e-04f,
                  -2.95459980854025e-03f, -1.60960333262415e-02f}) {
    p = hn::MulAdd(p, s, Constant(a));
  }
  V q = Constant(-1.45660718464996e-05f);
  for (float b : {-2.13374055278905e-04f, -1.68282697438203e-03f,
                  -7.37332916720468e-03f, -1.42647390514189e-02f}) {
    q = hn::MulAdd(q, s, Constant(b));
  }
  return KeepNan(x, hn::Div(hn::Mul(c, p), q));
}

// x * sigmoid(y).
HWY_INLINE V TimesSigmoid(V x, V y) {
  const V one = Constant(1.0f);
  const V sigmoid = hn::Div(one, hn::Add(one, hn::Exp(D(), hn::Neg(y))));
  // Exp is wrong where its result exceeds float32's range; the product is 0
  // there. A NaN stays NaN.
  return hn::Mul(x, hn::IfThenElseZero(hn::Ge(y, Constant(-88.0f)), sigmoid));
}

struct Silu {
  HWY_INLINE V operator()(V x) const { return TimesSigmoid(x, x); }
};

struct QuickGelu {
  HWY_INLINE V operator()(V x) const {
    return TimesSigmoid(x, hn::Mul(x, Constant(1.702f)));
  }
};

struct Gelu {
  HWY_INLINE V operator()(V x) const {
    const V erf = ErfOf(hn::Mul(x, Constant(0.70710678118654752f)));
    return hn::Mul(hn::Mul(Constant(0.5f), x), hn::Add(Constant(1.0f), erf));
  }
};

struct GeluTanh {
  HWY_INLINE V operator()(V x) const {
    const V cube = hn::Mul(hn::Mul(x, x), x);
    const V inner = hn::Mul(Constant(0.79788456080286536f),
                            hn::Add(x, hn::Mul(Constant(0.044715f), cube)));
    return hn::Mul(hn::Mul(Constant(0.5f), x),
                   hn::Add(Constant(1.0f), TanhOf(inner)));
  }
};

struct Relu {
  HWY_INLINE V operator()(V x) const {
    return hn::IfThenElse(hn::Lt(x, hn::Zero(D())), hn::Zero(D()), x);
  }
};

struct Softcap {
  float cap;
  HWY_INLINE V operator()(V x) const {
    return hn::Mul(Constant(cap), TanhOf(hn::Div(x, Constant(cap))));
  }
};

// x (n) = f(x), times `times` if that is given. The tail goes through the same
// vector operations, because an element's bits must not depend on its place.
template <typename F>
HWY_INLINE void Apply(const F& f, float* HWY_RESTRICT x,
                      const float* HWY_RESTRICT times, size_t n) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    V y = f(hn::LoadU(d, x + i));
    if (times != nullptr) y = hn::Mul(y, hn::LoadU(d, times + i));
    hn::StoreU(y, d, x + i);
  }
  if (i == n) return;
  HWY_ALIGN float tail[HWY_MAX_BYTES / sizeof(float)] = {};
  HWY_ALIGN float factors[HWY_MAX_BYTES / sizeof(float)] = {};
  std::copy(x + i, x + n, tail);
  V y = f(hn::Load(d, tail));
  if (times != nullptr) {
    std::copy(times + i, times + n, factors);
    y = hn::Mul(y, hn::Load(d, factors));
  }
  hn::Store(y, d, tail);
  std::copy(tail, tail + (n - i), x + i);
}

HWY_ATTR void ActivateChunk(float* x, const float* times, size_t n,
                            Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return Apply(Silu(), x, times, n);
    case Activation::kGelu:
      return Apply(Gelu(), x, times, n);
    case Activation::kGeluTanh:
      return Apply(GeluTanh(), x, times, n);
    case Activation::kRelu:
      return Apply(Relu(), x, times, n);
    case Activation::kQuickGelu:
      return Apply(QuickGelu(), x, times, n);
  }
}

HWY_ATTR void SoftcapChunk(float* x, size_t n, float cap) {
  Apply(Softcap{cap}, x, nullptr, n);
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
HWY_EXPORT(ActivateChunk);
HWY_EXPORT(SoftcapChunk);

namespace {

// Runs body(begin, end) over [0, n), a few thousand elements at a time.
template <typename Body>
void ForChunks(int64_t n, ThreadPool& pool, const Body& body) {
  constexpr int64_t kChunk = 16384;
  pool.For((n + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    body(chunk * kChunk, std::min(n, (chunk + 1) * kChunk));
  });
}

}  // namespace

void Activate(float* x, const float* times, int64_t n, Activation activation,
              ThreadPool& pool) {
  ForChunks(n, pool, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ActivateChunk)
    (x + begin, times == nullptr ? nullptr : times + begin, end - begin,
     activation);
  });
}

void Softcap(float* x, int64_t n, float cap, ThreadPool& pool) {
  ForChunks(n, pool, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SoftcapChunk)(x + begin, end - begin, cap);
  });
}

void Add(float* x, const float* y, int64_t n, ThreadPool& pool) {
  ForChunks(n, pool, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) x[i] += y[i];
  });
}

void Scale(float* x, int64_t n, float factor, ThreadPool& pool) {
  ForChunks(n, pool, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) x[i] *= factor;
  });
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
