#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <cmath>

#include "engine/cpu/kernels.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

HWY_ATTR void RmsNormRow(const float* x, const float* weight, float eps,
                         int dim, float* out) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto total = hn::Zero(d);
  int i = 0;
  for (; i + lanes <= dim; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    total = hn::MulAdd(v, v, total);
  }
  float squares = hn::GetLane(hn::SumOfLanes(d, total));
  for (; i < dim; ++i) squares += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(dim) + eps);
  const auto vscale = hn::Set(d, scale);
  for (i = 0; i + lanes <= dim; i += lanes) {
    hn::StoreU(
        hn::Mul(hn::Mul(hn::LoadU(d, x + i), vscale), hn::LoadU(d, weight + i)),
        d, out + i);
  }
  for (; i < dim; ++i) out[i] = x[i] * scale * weight[i];
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
HWY_EXPORT(RmsNormRow);

void RmsNorm(const float* x, const float* weight, float eps, int rows, int dim,
             float* out, ThreadPool& pool) {
  constexpr int kChunk = 16;
  pool.For((rows + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min<int64_t>(rows, (chunk + 1) * kChunk);
    for (int64_t row = chunk * kChunk; row < end; ++row) {
      HWY_DYNAMIC_DISPATCH(RmsNormRow)
      (x + row * dim, weight, eps, dim, out + row * dim);
    }
  });
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
