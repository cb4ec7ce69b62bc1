// Chooses a disruption rule's dims and writes their new values.
#include "engine/cuda/device.h"
#include "engine/cuda/job_list.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/rank.h"
#include "engine/cuda/reduce.h"

namespace qk::cuda {
namespace {

using Replace = DisruptionRule::Replace;

constexpr int kThreads = 128;

// Before a token's RankMemory.
struct TokenShared {
  double sums[kThreads / 32];
  int64_t counts[kThreads / 32];
};

// The value of each chosen dim of one head. A barrier comes before.
__device__ void SetValues(const SelectJob& job, const double* sums,
                          const RankMemory& m, float* values) {
  const auto count = static_cast<double>(job.count);
  const Replace replace = job.rule.replace;
  double pooled = 0;  // in every thread alike
  int chosen = 0;
  for (int d = 0; replace == Replace::kPooledMean && d < job.head_dim; ++d) {
    if (!m.chosen[d]) continue;
    pooled += sums[d] / count;
    ++chosen;
  }
  for (int d = threadIdx.x; d < job.head_dim; d += kThreads) {
    double value = 0;
    if (m.chosen[d] && replace == Replace::kPooledMean) {
      value = pooled / chosen;
    } else if (m.chosen[d] && replace == Replace::kPerDimMean) {
      value = sums[d] / count;
    }
    values[d] = static_cast<float>(value);
  }
}

// A block for each head of each job.
template <typename List>
__global__ void __launch_bounds__(kThreads)
    SelectKernel(QK_ARGUMENTS(List) list) {
  const SelectJob& job = list.jobs[blockIdx.y];
  const int head = blockIdx.x, dims = job.head_dim;
  if (head >= job.rule.num_heads) return;
  const RankMemory m(&Shared<double>(), dims);
  const int64_t at = int64_t{head} * dims;
  uint8_t* mask = job.to.mask + at;
  float* values = job.to.values + at;
  const HeadRole role = job.rule.heads[head];
  if (!role.active) {
    for (int d = threadIdx.x; d < dims; d += kThreads) {
      mask[d] = 0;
      values[d] = 0;
    }
    return;
  }
  for (int d = threadIdx.x; d < dims; d += kThreads) {
    m.squares[d] = job.from.squares[at + d];
  }
  __syncthreads();
  Choose(job.rule, job.step, role.id, dims, m);
  __syncthreads();
  for (int d = threadIdx.x; d < dims; d += kThreads) mask[d] = m.chosen[d];
  SetValues(job, job.from.sums + at, m, values);
}

// A block for each row of each job.
template <typename List>
__global__ void __launch_bounds__(kThreads)
    ReplaceKernel(QK_ARGUMENTS(List) list) {
  const ReplaceJob& job = list.jobs[blockIdx.y];
  if (static_cast<int>(blockIdx.x) >= job.rows.count) return;
  const int width = job.x.heads * job.x.head_dim;
  float* x = job.x.data + RowAt(job.rows, blockIdx.x) * width;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    if (!job.choice.mask[i]) continue;
    x[i] = job.replace == Replace::kScale
               ? static_cast<float>(x[i] * job.factor)
               : job.choice.values[i];
  }
}

// Sets a token's mask (heads, head_dim) from what is chosen of its dims. An
// explicit list sets its own entries only.
__device__ void SetTokenMask(const TensorRule& rule, int dims,
                             const RankMemory& m, uint8_t* mask) {
  const bool listed = rule.select == DisruptionRule::Select::kExplicit;
  for (int i = threadIdx.x; i < rule.num_heads * dims; i += kThreads) {
    const int d = i % dims;
    const HeadRole role = rule.heads[i / dims];
    uint8_t chosen = role.active && !listed ? m.chosen[d] : 0;
    for (int e = 0; listed && role.active && e < rule.num_entries; ++e) {
      const HeadDim& entry = rule.entries[e];
      if (entry.head == role.id && entry.dim == d && IsFinite(m.squares[d])) {
        chosen = 1;
      }
    }
    mask[i] = chosen;
  }
}

// Writes a token's chosen values (n) and returns what they became; each thread
// reads the part of the mask that it has set itself.
__device__ float WriteToken(const TensorRule& rule, int n, const uint8_t* mask,
                            float* x) {
  auto& shared = Shared<TokenShared>();
  double sum = 0;
  int64_t chosen = 0;
  for (int i = threadIdx.x; i < n; i += kThreads) {
    if (!mask[i]) continue;
    sum += x[i];
    ++chosen;
  }
  sum = BlockSum<kThreads>(sum, shared.sums);
  chosen = BlockSum<kThreads>(chosen, shared.counts);
  const bool mean = rule.replace == Replace::kPooledMean && chosen > 0;
  const float value =
      mean ? static_cast<float>(sum / static_cast<double>(chosen)) : 0.0f;
  for (int i = threadIdx.x; i < n; i += kThreads) {
    if (!mask[i]) continue;
    x[i] = rule.replace == Replace::kScale
               ? static_cast<float>(x[i] * rule.factor)
               : value;
  }
  return value;
}

// A block for each row of each job. The norm over the rule's heads chooses
// dims, which are set in all of these heads.
template <typename List>
__global__ void __launch_bounds__(kThreads)
    TokenRuleKernel(QK_ARGUMENTS(List) list) {
  const TokenRuleJob& job = list.jobs[blockIdx.y];
  if (static_cast<int>(blockIdx.x) >= job.rows.count) return;
  const int dims = job.x.head_dim, n = job.x.heads * dims;
  const RankMemory m(&Shared<TokenShared>() + 1, dims);
  const int64_t row = RowAt(job.rows, blockIdx.x);
  float* x = job.x.data + row * n;
  uint8_t* mask = job.to.mask + int64_t{blockIdx.x} * n;
  for (int d = threadIdx.x; d < dims; d += kThreads) {
    double squares = 0;
    for (int h = 0; h < job.rule.num_heads; ++h) {
      if (!job.rule.heads[h].active) continue;
      const double v = x[h * dims + d];
      squares += v * v;
    }
    m.squares[d] = squares;
  }
  __syncthreads();
  if (job.rule.select != DisruptionRule::Select::kExplicit) {
    Choose(job.rule, job.step, job.x.first_position + static_cast<int>(row),
           dims, m);
    __syncthreads();
  }
  SetTokenMask(job.rule, dims, m, mask);
  const float value = WriteToken(job.rule, n, mask, x);
  if (threadIdx.x == 0) job.to.values[blockIdx.x] = value;
}

}  // namespace

void SelectDims(const SelectJob* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    const int heads =
        Largest(list, n, [](const SelectJob& j) { return j.rule.num_heads; });
    const int dims =
        Largest(list, n, [](const SelectJob& j) { return j.head_dim; });
    Launch(SelectKernel<std::decay_t<decltype(list)>>, dim3(heads, n),
           dim3(kThreads), RankMemory::Bytes(dims), stream, list);
  });
}

void ReplaceDims(const ReplaceJob* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    const int rows =
        Largest(list, n, [](const ReplaceJob& j) { return j.rows.count; });
    Launch(ReplaceKernel<std::decay_t<decltype(list)>>, dim3(rows, n),
           dim3(kThreads), 0, stream, list);
  });
}

void DisruptPerToken(const TokenRuleJob* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    const int rows =
        Largest(list, n, [](const TokenRuleJob& j) { return j.rows.count; });
    const int dims =
        Largest(list, n, [](const TokenRuleJob& j) { return j.x.head_dim; });
    Launch(TokenRuleKernel<std::decay_t<decltype(list)>>, dim3(rows, n),
           dim3(kThreads), sizeof(TokenShared) + RankMemory::Bytes(dims),
           stream, list);
  });
}

}  // namespace qk::cuda
