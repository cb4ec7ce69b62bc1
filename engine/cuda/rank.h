// The choice of a disruption rule among the dims of one head or one token, made
// by a block of threads. proto/qkscope/v1/spec.proto defines the exact meaning.
#ifndef QKSCOPE_ENGINE_CUDA_RANK_H_
#define QKSCOPE_ENGINE_CUDA_RANK_H_

#include "engine/cuda/device.h"
#include "engine/cuda/job_list.h"
#include "engine/cuda/philox.h"

namespace qk::cuda {

// The block's memory for `dims` dims.
struct RankMemory {
  double* squares;  // the squared norms, set by the caller
  double* roots;
  int* order;
  uint8_t* allowed;
  uint8_t* chosen;  // the result

  __device__ RankMemory(void* shared, int dims)
      : squares(static_cast<double*>(shared)),
        roots(squares + dims),
        order(reinterpret_cast<int*>(roots + dims)),
        allowed(reinterpret_cast<uint8_t*>(order + dims)),
        chosen(allowed + dims) {}
  __host__ __device__ static size_t Bytes(int dims) {
    return static_cast<size_t>(dims) *
           (2 * sizeof(double) + sizeof(int) + 2 * sizeof(uint8_t));
  }
};

__device__ inline bool IsFinite(double x) { return x - x == 0.0; }

// How many dims rank before `dim`. Ties go to the lowest dim; what is not
// finite ranks last.
__device__ inline int RankOf(const double* squares, int dims, int dim,
                             bool largest_first) {
  const double own = squares[dim];
  const bool own_finite = IsFinite(own);
  int before = 0;
  for (int d = 0; d < dims; ++d) {
    const double x = squares[d];
    const bool finite = IsFinite(x);
    bool first;
    if (finite != own_finite) {
      first = finite;
    } else if (!finite || x == own) {
      first = d < dim;
    } else {
      first = largest_first ? x > own : x < own;
    }
    before += first;
  }
  return before;
}

// As std::shuffle would, the first k of the allowed dims in random order.
__device__ inline void ChooseRandom(const TensorRule& rule, int step,
                                    int number, int dims, const RankMemory& m) {
  const int first = threadIdx.x, threads = blockDim.x;
  for (int d = first; d < dims; d += threads) {
    m.allowed[d] = RankOf(m.squares, dims, d, true) >= rule.exclude_top;
    m.chosen[d] = 0;
  }
  __syncthreads();
  for (int d = first; d < dims; d += threads) {
    if (!m.allowed[d]) continue;
    int place = 0;
    for (int i = 0; i < d; ++i) place += m.allowed[i];
    m.order[place] = d;
  }
  __syncthreads();
  if (first == 0) {
    const int n = dims - min(max(rule.exclude_top, 0), dims);
    DevicePhilox random(rule.seed, RandomPurpose::kRandomK, rule.layer,
                        static_cast<uint32_t>(rule.tensor), number, step);
    for (int i = 0; i < rule.k; ++i) {
      const int j = i + static_cast<int>(random.Below(n - i));
      const int dim = m.order[j];
      m.order[j] = m.order[i];
      m.order[i] = dim;
      m.chosen[dim] = 1;
    }
  }
  __syncthreads();
}

// Chooses dims whose norm is above lambda times the mean of the finite ones.
__device__ inline void ChooseMassive(double lambda, int dims,
                                     const RankMemory& m) {
  const int first = threadIdx.x, threads = blockDim.x;
  for (int d = first; d < dims; d += threads) m.roots[d] = sqrt(m.squares[d]);
  __syncthreads();
  double sum = 0;  // in every thread alike
  int finite = 0;
  for (int d = 0; d < dims; ++d) {
    if (!IsFinite(m.squares[d])) continue;
    sum += m.roots[d];
    ++finite;
  }
  const double threshold = finite == 0 ? 0 : lambda * (sum / finite);
  for (int d = first; d < dims; d += threads) {
    m.chosen[d] = finite > 0 && m.roots[d] > threshold;
  }
}

// Sets m.chosen; all threads of the block call it after a barrier, and see the
// result after the next one. `number` tells random choices apart: the head's
// id, or the token's position.
__device__ inline void Choose(const TensorRule& rule, int step, int number,
                              int dims, const RankMemory& m) {
  using Select = DisruptionRule::Select;
  const int first = threadIdx.x, threads = blockDim.x;
  if (rule.select == Select::kRandomK) {
    ChooseRandom(rule, step, number, dims, m);
  } else if (rule.select == Select::kThreshold) {
    ChooseMassive(rule.lambda, dims, m);
  } else if (rule.select == Select::kExplicit) {
    for (int d = first; d < dims; d += threads) {
      m.chosen[d] = 0;
      for (int i = 0; i < rule.num_entries; ++i) {
        const HeadDim& entry = rule.entries[i];
        if (entry.head == number && entry.dim == d) m.chosen[d] = 1;
      }
    }
  } else {
    const bool largest_first = rule.select == Select::kTopK;
    for (int d = first; d < dims; d += threads) {
      m.chosen[d] = RankOf(m.squares, dims, d, largest_first) < rule.k;
    }
  }
  for (int d = first; d < dims; d += threads) {
    if (!IsFinite(m.squares[d])) m.chosen[d] = 0;
  }
}

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_RANK_H_
