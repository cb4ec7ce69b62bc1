// Jobs of one op that travel with a launch, as its arguments: an op over many
// sequences is one launch and no copy.
#ifndef QKSCOPE_ENGINE_CUDA_JOB_LIST_H_
#define QKSCOPE_ENGINE_CUDA_JOB_LIST_H_

#include <algorithm>
#include <cstdint>

#include "engine/backend/jobs.h"
#include "engine/cuda/device.h"

namespace qk::cuda {

// A launch takes 32,764 bytes of arguments. Few jobs go in a small list: the
// driver copies all of a list at each launch.
template <typename Job, int kMost>
struct JobList {
  static constexpr int kSize = kMost;
  Job jobs[kMost];
};

// Calls run(list, count) with all jobs, many at a time.
template <typename Job, typename Run>
void ForJobs(const Job* jobs, int count, const Run& run) {
  constexpr int kMany = static_cast<int>((24 << 10) / sizeof(Job));
  constexpr int kFew = 4;
  const auto send = [&](auto list, int begin) {
    const int n = std::min(count - begin, list.kSize);
    std::copy_n(jobs + begin, n, list.jobs);
    run(list, n);
  };
  if (count <= kFew) {
    if (count > 0) send(JobList<Job, kFew>(), 0);
    return;
  }
  for (int i = 0; i < count; i += kMany) send(JobList<Job, kMany>(), i);
}

// The largest size(job) of some jobs.
template <typename List, typename Size>
auto Largest(const List& list, int count, const Size& size) {
  auto largest = size(list.jobs[0]);
  for (int i = 1; i < count; ++i) {
    largest = std::max(largest, size(list.jobs[i]));
  }
  return largest;
}

__host__ __device__ inline int64_t RowAt(const RowSet& rows, int i) {
  return rows.begin + (rows.list == nullptr ? i : rows.list[i]);
}
__host__ __device__ inline int HeadAt(const HeadSet& heads, int i) {
  return heads.list == nullptr ? i : heads.list[i];
}
// The values (head_dim) of one head in one row.
__device__ inline float* HeadOf(const HeadRows& x, int64_t row, int head) {
  return x.data + (row * x.heads + head) * x.head_dim;
}

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_JOB_LIST_H_
