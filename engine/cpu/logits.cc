#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/cpu/logits.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/cpu/kernels.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

// Sums over the vocabulary run in float32 lanes over chunks of kChunk ids and
// in float64 over chunks.
#ifndef QKSCOPE_ENGINE_CPU_LOGITS_ONCE_
#define QKSCOPE_ENGINE_CPU_LOGITS_ONCE_
namespace qk::cpu {
inline constexpr int kLogitsChunk = 1024;
}  // namespace qk::cpu
#endif  // QKSCOPE_ENGINE_CPU_LOGITS_ONCE_

HWY_BEFORE_NAMESPACE();
namespace qk::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The sum of exp(x[i] - max) over n ids. weights (n), unless null, gets the
// terms.
HWY_ATTR double SumExp(const float* x, int n, float max, float* weights) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  double sum = 0;
  for (int begin = 0; begin < n; begin += kLogitsChunk) {
    const int end = std::min(n, begin + kLogitsChunk);
    auto total = hn::Zero(d);
    int i = begin;
    for (; i + lanes <= end; i += lanes) {
      const auto e = hn::Exp(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, max)));
      if (weights != nullptr) hn::StoreU(e, d, weights + i);
      total = hn::Add(total, e);
    }
    sum += hn::GetLane(hn::SumOfLanes(d, total));
    for (; i < end; ++i) {
      const float e = std::exp(x[i] - max);
      if (weights != nullptr) weights[i] = e;
      sum += e;
    }
  }
  return sum;
}

HWY_ATTR float MaxOf(const float* x, int n) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  float max = -std::numeric_limits<float>::infinity();
  auto top = hn::Set(d, max);
  auto nan = hn::Zero(d);  // becomes NaN at the first NaN
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    top = hn::Max(top, v);
    nan = hn::Add(nan, hn::Sub(v, v));
  }
  max = hn::GetLane(hn::MaxOfLanes(d, top));
  float flag = hn::GetLane(hn::SumOfLanes(d, nan));
  for (; i < n; ++i) {
    max = std::max(max, x[i]);
    flag += x[i] - x[i];
  }
  return flag == 0.0f ? max : std::numeric_limits<float>::quiet_NaN();
}

// The sum of weights[i] * ((base[i] - arm[i]) - shift).
HWY_ATTR double WeightedDifference(const float* weights, const float* base,
                                   const float* arm, int n, double shift) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> half;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto total = hn::Zero(d);
  int i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto w = hn::PromoteTo(d, hn::LoadU(half, weights + i));
    const auto b = hn::PromoteTo(d, hn::LoadU(half, base + i));
    const auto a = hn::PromoteTo(d, hn::LoadU(half, arm + i));
    const auto term = hn::Sub(hn::Sub(b, a), hn::Set(d, shift));
    total = hn::Add(total, hn::Mul(w, term));
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, total));
  for (; i < n; ++i) {
    sum += double{weights[i]} * ((double{base[i]} - arm[i]) - shift);
  }
  return sum;
}

// sum: of exp(base[i] - max) over n ids; weighted: of these terms times
// ((base[i] - arm[i]) - shift).
HWY_ATTR void KlSums(const float* base, const float* arm, int n, float max,
                     double shift, double* sum, double* weighted) {
  HWY_ALIGN float weights[kLogitsChunk];
  *sum = *weighted = 0;
  for (int begin = 0; begin < n; begin += kLogitsChunk) {
    const int count = std::min(n - begin, kLogitsChunk);
    *sum += SumExp(base + begin, count, max, weights);
    *weighted +=
        WeightedDifference(weights, base + begin, arm + begin, count, shift);
  }
}

}  // namespace qk::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qk::cpu {
HWY_EXPORT(SumExp);
HWY_EXPORT(MaxOf);
HWY_EXPORT(KlSums);

void ReduceLogits(const float* logits, int vocab,
                  absl::Span<const int32_t> targets, LogitsRow* out,
                  ThreadPool& pool) {
  pool.For(static_cast<int64_t>(targets.size()), [&](int64_t r, int) {
    const float* x = logits + r * vocab;
    const int32_t target = targets[r];
    LogitsRow& row = out[r];
    const float max = HWY_DYNAMIC_DISPATCH(MaxOf)(x, vocab);
    if (!std::isfinite(max)) {
      // The row has a value that is not finite.
      row.top1 = 0;
      row.log_sum_exp = std::numeric_limits<double>::quiet_NaN();
      row.target_logprob = std::numeric_limits<float>::quiet_NaN();
      row.top1_logprob = row.target_logprob;
      return;
    }
    row.top1 = static_cast<int32_t>(std::find(x, x + vocab, max) - x);
    row.log_sum_exp =
        max + std::log(HWY_DYNAMIC_DISPATCH(SumExp)(x, vocab, max, nullptr));
    row.top1_logprob = static_cast<float>(max - row.log_sum_exp);
    row.target_logprob =
        target < 0 ? 0.0f : static_cast<float>(x[target] - row.log_sum_exp);
  });
}

namespace {

void Top(const TopJob& job, int vocab) {
  const float* logits = job.logits;
  std::vector<int32_t> order(vocab);
  for (int i = 0; i < vocab; ++i) order[i] = i;
  const auto more_likely = [&](int32_t a, int32_t b) {
    // NaNs come last, so that the order is a strict weak one.
    const bool nan_a = std::isnan(logits[a]);
    const bool nan_b = std::isnan(logits[b]);
    if (nan_a != nan_b) return nan_b;
    if (!nan_a && logits[a] != logits[b]) return logits[a] > logits[b];
    return a < b;
  };
  std::partial_sort(order.begin(), order.begin() + job.n, order.end(),
                    more_likely);
  for (int i = 0; i < job.n; ++i) {
    job.to[i] = {order[i], static_cast<float>(logits[order[i]] -
                                              job.reduced->log_sum_exp)};
  }
}

}  // namespace

void TopLogits(absl::Span<const TopJob> jobs, int vocab, ThreadPool& pool) {
  pool.For(static_cast<int64_t>(jobs.size()),
           [&](int64_t i, int) { Top(jobs[i], vocab); });
}

void KlDivergence(const float* base, const float* arm, int vocab, int rows,
                  const LogitsRow* base_rows, const LogitsRow* arm_rows,
                  float* kl, ThreadPool& pool) {
  pool.For(rows, [&](int64_t r, int) {
    const float* b = base + r * vocab;
    const float* a = arm + r * vocab;
    const double lse_base = base_rows[r].log_sum_exp;
    const double lse_arm = arm_rows[r].log_sum_exp;
    if (!std::isfinite(lse_base) || !std::isfinite(lse_arm)) {
      kl[r] = std::numeric_limits<float>::quiet_NaN();
      return;
    }
    const float max = b[base_rows[r].top1];
    double sum, weighted;
    HWY_DYNAMIC_DISPATCH(KlSums)
    (b, a, vocab, max, lse_base - lse_arm, &sum, &weighted);
    const double value = weighted / sum;
    kl[r] =
        value < 0 ? 0.0f : static_cast<float>(value);  // rounding; NaN stays
  });
}

}  // namespace qk::cpu
#endif  // HWY_ONCE
