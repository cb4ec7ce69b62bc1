#include <cmath>

#include "engine/cuda/device.h"
#include "engine/cuda/job_list.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 32;                 // of a block
constexpr int kSpans = kThreads / kColumns;  // that a block sums at a time

struct MomentsShared {
  double squares[kSpans][kColumns];
  double sums[kSpans][kColumns];
};

// The first of the chosen rows whose position is at least `position`.
__device__ int FirstAt(const MomentsJob& job, int64_t position) {
  const int64_t row = position - job.x.first_position - job.rows.begin;
  int low = 0, high = job.rows.count;
  if (job.rows.list == nullptr) {
    return static_cast<int>(min(max(row, int64_t{0}), int64_t{high}));
  }
  while (low < high) {
    const int middle = (low + high) / 2;
    if (job.rows.list[middle] < row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Adds the rows of one span of kPageSize positions in a column.
__device__ void SumSpan(const MomentsJob& job, int64_t span, int column,
                        double& squares, double& sums) {
  const int64_t width = int64_t{job.x.heads} * job.x.head_dim;
  const int end = FirstAt(job, (span + 1) * kPageSize);
  for (int i = FirstAt(job, span * kPageSize); i < end; ++i) {
    const double v = job.x.data[RowAt(job.rows, i) * width + column];
    squares += v * v;
    sums += v;
  }
}

// Threads are (columns, spans). A span's rows are one chain of additions, and
// spans are added in ascending order, as on the CPU.
template <typename List>
__global__ void __launch_bounds__(kThreads)
    MomentsKernel(QK_ARGUMENTS(List) list) {
  const MomentsJob& job = list.jobs[blockIdx.y];
  auto& shared = Shared<MomentsShared>();
  const int width = job.x.heads * job.x.head_dim;
  const int x = threadIdx.x % kColumns, y = threadIdx.x / kColumns;
  const int column = blockIdx.x * kColumns + x;
  if (static_cast<int>(blockIdx.x) * kColumns >= width) return;
  const bool inside = column < width;
  const bool adds = inside && y == 0;
  double squares = 0, sums = 0;
  if (adds && !job.from_zero) {
    squares = job.to.squares[column];
    if (job.to.sums != nullptr) sums = job.to.sums[column];
  }
  const int count = job.rows.count;
  const auto span_of = [&](int i) {
    return (job.x.first_position + RowAt(job.rows, i)) / kPageSize;
  };
  const int64_t first = count == 0 ? 0 : span_of(0);
  const int64_t last = count == 0 ? -1 : span_of(count - 1);
  for (int64_t span = first; span <= last; span += kSpans) {
    double own_squares = 0, own_sums = 0;
    if (inside && span + y <= last) {
      SumSpan(job, span + y, column, own_squares, own_sums);
    }
    shared.squares[y][x] = own_squares;
    shared.sums[y][x] = own_sums;
    __syncthreads();
    for (int i = 0; adds && i < kSpans && span + i <= last; ++i) {
      squares += shared.squares[i][x];
      sums += shared.sums[i][x];
    }
    __syncthreads();
  }
  if (!adds) return;
  job.to.squares[column] = squares;
  if (job.to.sums != nullptr) job.to.sums[column] = sums;
}

template <typename List>
__global__ void __launch_bounds__(kThreads)
    NormsKernel(QK_ARGUMENTS(List) list) {
  const NormsJob& job = list.jobs[blockIdx.y];
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= job.heads.count * job.head_dim) return;
  const int head = HeadAt(job.heads, i / job.head_dim);
  job.to[i] = static_cast<float>(
      sqrt(job.squares[int64_t{head} * job.head_dim + i % job.head_dim]));
}

// A warp for each head of each row.
template <typename List>
__global__ void __launch_bounds__(kThreads)
    TokenNormsKernel(QK_ARGUMENTS(List) list) {
  const TokenNormsJob& job = list.jobs[blockIdx.y];
  const int64_t i = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  if (i >= int64_t{job.rows.count} * job.heads.count) return;  // a whole warp
  const int64_t row = RowAt(job.rows, static_cast<int>(i / job.heads.count));
  const int head = HeadAt(job.heads, static_cast<int>(i % job.heads.count));
  const float* v = HeadOf(job.x, row, head);
  double squares = 0;
  for (int d = threadIdx.x % 32; d < job.x.head_dim; d += 32) {
    squares += double{v[d]} * v[d];
  }
  squares = WarpSum(squares);
  if (threadIdx.x % 32 == 0) job.to[i] = static_cast<float>(sqrt(squares));
}

}  // namespace

void AddMoments(const MomentsJob* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    const int width = Largest(
        list, n, [](const MomentsJob& j) { return j.x.heads * j.x.head_dim; });
    Launch(MomentsKernel<std::decay_t<decltype(list)>>,
           dim3(Blocks(width, kColumns), n), dim3(kThreads),
           sizeof(MomentsShared), stream, list);
  });
}

void FinishNorms(const NormsJob* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    const int width = Largest(
        list, n, [](const NormsJob& j) { return j.heads.count * j.head_dim; });
    Launch(NormsKernel<std::decay_t<decltype(list)>>,
           dim3(Blocks(width, kThreads), n), dim3(kThreads), 0, stream, list);
  });
}

void TokenNorms(const TokenNormsJob* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    const int64_t norms = Largest(list, n, [](const TokenNormsJob& j) {
      return int64_t{j.rows.count} * j.heads.count;
    });
    const int64_t blocks = Blocks<int64_t>(norms, kThreads / 32);
    Launch(TokenNormsKernel<std::decay_t<decltype(list)>>,
           dim3(static_cast<unsigned>(blocks), n), dim3(kThreads), 0, stream,
           list);
  });
}

}  // namespace qk::cuda
