#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/norm.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>
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

// Computes the mean first, then the mean of the squared differences from it.
HWY_ATTR void LayerNormRow(const float* x, const float* weight,
                           const float* bias, float eps, int dim, float* out) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto total = hn::Zero(d);
  int i = 0;
  for (; i + lanes <= dim; i += lanes) {
    total = hn::Add(total, hn::LoadU(d, x + i));
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, total));
  for (; i < dim; ++i) sum += x[i];
  const float mean = sum / static_cast<float>(dim);
  const auto vmean = hn::Set(d, mean);
  total = hn::Zero(d);
  for (i = 0; i + lanes <= dim; i += lanes) {
    const auto v = hn::Sub(hn::LoadU(d, x + i), vmean);
    total = hn::MulAdd(v, v, total);
  }
  float squares = hn::GetLane(hn::SumOfLanes(d, total));
  for (; i < dim; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(dim) + eps);
  const auto vscale = hn::Set(d, scale);
  for (i = 0; i + lanes <= dim; i += lanes) {
    const auto v = hn::Mul(hn::Sub(hn::LoadU(d, x + i), vmean), vscale);
    hn::StoreU(
        hn::Add(hn::Mul(v, hn::LoadU(d, weight + i)), hn::LoadU(d, bias + i)),
        d, out + i);
  }
  for (; i < dim; ++i) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
HWY_EXPORT(RmsNormRow);
HWY_EXPORT(LayerNormRow);

namespace {

template <typename NormRow>
void ForRows(int rows, ThreadPool& pool, const NormRow& norm_row) {
  constexpr int kChunk = 16;
  pool.For((rows + kChunk - 1) / kChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min<int64_t>(rows, (chunk + 1) * kChunk);
    for (int64_t row = chunk * kChunk; row < end; ++row) norm_row(row);
  });
}

}  // namespace

void RmsNorm(const float* x, const float* weight, float eps, int rows, int dim,
             float* out, ThreadPool& pool) {
  ForRows(rows, pool, [&](int64_t row) {
    HWY_DYNAMIC_DISPATCH(RmsNormRow)
    (x + row * dim, weight, eps, dim, out + row * dim);
  });
}

void LayerNorm(const float* x, const float* weight, const float* bias,
               float eps, int rows, int dim, float* out, ThreadPool& pool) {
  ForRows(rows, pool, [&](int64_t row) {
    HWY_DYNAMIC_DISPATCH(LayerNormRow)
    (x + row * dim, weight, bias, eps, dim, out + row * dim);
  });
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
