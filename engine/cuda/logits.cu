#include <cmath>

#include "engine/cuda/device.h"
#include "engine/cuda/job_list.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 512;  // a block for each row

struct LogitsShared {
  double sums[kThreads / 32];
  uint64_t keys[kThreads / 32];
};

// A number that grows with x and, for equal values, falls with the id. A NaN's
// is below all others, and none is 0 or kBad.
constexpr uint64_t kBad = ~uint64_t{0};
__device__ uint64_t KeyOf(float x, int id) {
  uint32_t order = 0;
  if (x == x) {
    const uint32_t bits = FloatBits(x + 0.0f);  // -0 is 0
    order = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  }
  return uint64_t{order} << 32 | static_cast<uint32_t>(~id);
}
__device__ int IdOf(uint64_t key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}

__device__ uint64_t BlockMax(uint64_t key) {
  return BlockReduce<kThreads>(
      key, Shared<LogitsShared>().keys,
      [](uint64_t a, uint64_t b) { return a > b ? a : b; });
}
__device__ double RowSum(double x) {
  return BlockSum<kThreads>(x, Shared<LogitsShared>().sums);
}

__global__ void __launch_bounds__(kThreads)
    ReduceKernel(const float* logits, int vocab, const int32_t* targets,
                 LogitsRow* out) {
  const float* x = logits + int64_t{blockIdx.x} * vocab;
  uint64_t key = 0;
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    const float v = x[i];
    const uint64_t own = v - v == 0.0f ? KeyOf(v, i) : kBad;
    key = own > key ? own : key;
  }
  key = BlockMax(key);
  LogitsRow row;
  const float none = nanf("");
  if (key == kBad) {  // the row has a value that is not finite
    row = {none, 0, none, none};
  } else {
    const float max = x[IdOf(key)];
    double sum = 0;
    for (int i = threadIdx.x; i < vocab; i += kThreads) sum += expf(x[i] - max);
    const int32_t target = targets[blockIdx.x];
    row.log_sum_exp = max + log(RowSum(sum));
    row.top1 = IdOf(key);
    row.top1_logprob = static_cast<float>(max - row.log_sum_exp);
    row.target_logprob =
        target < 0 ? 0.0f : static_cast<float>(x[target] - row.log_sum_exp);
  }
  if (threadIdx.x == 0) out[blockIdx.x] = row;
}

// The largest of a thread's own keys below `limit`; 0 if there is none.
__device__ uint64_t BestBelow(const float* x, int vocab, uint64_t limit) {
  uint64_t best = 0;
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    const uint64_t key = KeyOf(x[i], i);
    if (key < limit && key > best) best = key;
  }
  return best;
}

// A block for each job takes the row's best id n times. Only the thread that
// had it looks for its next one.
template <typename List>
__global__ void __launch_bounds__(kThreads)
    TopKernel(QK_ARGUMENTS(List) list, int vocab) {
  const TopJob& job = list.jobs[blockIdx.x];
  const float* x = job.logits;
  uint64_t own = BestBelow(x, vocab, kBad);
  for (int i = 0; i < job.n; ++i) {
    const uint64_t best = BlockMax(own);
    if (best != own) continue;
    job.to[i] = {IdOf(best),
                 static_cast<float>(x[IdOf(best)] - job.reduced->log_sum_exp)};
    own = BestBelow(x, vocab, best);
  }
}

__global__ void __launch_bounds__(kThreads)
    KlKernel(const float* base, const float* arm, int vocab,
             const LogitsRow* base_rows, const LogitsRow* arm_rows, float* kl) {
  const float* b = base + int64_t{blockIdx.x} * vocab;
  const float* a = arm + int64_t{blockIdx.x} * vocab;
  const double of_base = base_rows[blockIdx.x].log_sum_exp;
  const double of_arm = arm_rows[blockIdx.x].log_sum_exp;
  const double shift = of_base - of_arm;
  float value = nanf("");
  if (shift - shift == 0.0) {  // both are finite
    const float max = b[base_rows[blockIdx.x].top1];
    double weights = 0, sum = 0;
    for (int i = threadIdx.x; i < vocab; i += kThreads) {
      const double weight = expf(b[i] - max);
      weights += weight;
      sum += weight * ((double{b[i]} - a[i]) - shift);
    }
    const double mean = RowSum(sum) / RowSum(weights);
    value = mean < 0 ? 0.0f : static_cast<float>(mean);  // rounding; NaN stays
  }
  if (threadIdx.x == 0) kl[blockIdx.x] = value;
}

}  // namespace

void ReduceLogits(const float* logits, int vocab, int rows,
                  const int32_t* targets, LogitsRow* out, Stream stream) {
  Launch(ReduceKernel, dim3(rows), dim3(kThreads), sizeof(LogitsShared), stream,
         logits, vocab, targets, out);
}

void TopLogits(const TopJob* jobs, int count, int vocab, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    Launch(TopKernel<std::decay_t<decltype(list)>>, dim3(n), dim3(kThreads),
           sizeof(LogitsShared), stream, list, vocab);
  });
}

void KlDivergence(const float* base, const float* arm, int vocab, int rows,
                  const LogitsRow* base_rows, const LogitsRow* arm_rows,
                  float* kl, Stream stream) {
  Launch(KlKernel, dim3(rows), dim3(kThreads), sizeof(LogitsShared), stream,
         base, arm, vocab, base_rows, arm_rows, kl);
}

}  // namespace qk::cuda
