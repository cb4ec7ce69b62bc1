#include "engine/cuda/device.h"
#include "engine/cuda/job_list.h"
#include "engine/cuda/kernels.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 256;

struct alignas(16) Copied {
  uint64_t halves[2];
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    EmbedKernel(const T* table, const int32_t* tokens, int hidden, float* out) {
  const T* row = table + int64_t{tokens[blockIdx.x]} * hidden;
  float* to = out + int64_t{blockIdx.x} * hidden;
  for (int i = threadIdx.x; i < hidden; i += kThreads) to[i] = Load(row, i);
}

// A block for each row of each job.
template <typename List>
__global__ void __launch_bounds__(kThreads)
    ExpandKernel(QK_ARGUMENTS(List) list) {
  const ExpandJob& job = list.jobs[blockIdx.y];
  const HeadRows& x = job.x;
  if (static_cast<int>(blockIdx.x) >= x.rows) return;
  const int group = job.to_heads / x.heads;
  const int width = job.to_heads * x.head_dim;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    const int head = i / x.head_dim;
    job.to[int64_t{blockIdx.x} * width + i] =
        HeadOf(x, blockIdx.x, head / group)[i % x.head_dim];
  }
}

template <typename List>
__global__ void __launch_bounds__(kThreads)
    CopyOutKernel(QK_ARGUMENTS(List) list) {
  const CopyOutJob& job = list.jobs[blockIdx.y];
  const int dim = job.x.head_dim;
  if (static_cast<int>(blockIdx.x) >= job.rows.count) return;
  const int64_t row = RowAt(job.rows, blockIdx.x);
  const int width = job.heads.count * dim;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    const float v = HeadOf(job.x, row, HeadAt(job.heads, i / dim))[i % dim];
    const int64_t to = int64_t{blockIdx.x} * width + i;
    switch (job.dtype) {
      case RawDtype::kF32:
        static_cast<float*>(job.to)[to] = v;
        break;
      case RawDtype::kF16:
        static_cast<uint16_t*>(job.to)[to] = FloatToF16(v);
        break;
      case RawDtype::kBF16:
        static_cast<uint16_t*>(job.to)[to] = FloatToBf16(v);
        break;
    }
  }
}

constexpr int64_t kCopied = int64_t{64} << 10;  // bytes of a block

// A block for each kCopied bytes of each job, 16 bytes at a time where both
// ends allow it.
template <typename List>
__global__ void __launch_bounds__(kThreads)
    CopyKernel(QK_ARGUMENTS(List) list) {
  const CopyJob& job = list.jobs[blockIdx.y];
  const int64_t begin = int64_t{blockIdx.x} * kCopied;
  const int64_t bytes = min(kCopied, job.bytes - begin);
  if (bytes <= 0) return;
  char* to = static_cast<char*>(job.to) + begin;
  const char* from = static_cast<const char*>(job.from) + begin;
  const auto ends =
      reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from);
  const int64_t wide = ends % sizeof(Copied) == 0 ? bytes / sizeof(Copied) : 0;
  for (int64_t i = threadIdx.x; i < wide; i += kThreads) {
    reinterpret_cast<Copied*>(to)[i] = reinterpret_cast<const Copied*>(from)[i];
  }
  for (int64_t i = wide * sizeof(Copied) + threadIdx.x; i < bytes;
       i += kThreads) {
    to[i] = from[i];
  }
}

}  // namespace

void Embed(const void* table, ComputeType type, const int32_t* tokens, int rows,
           int hidden, float* out, Stream stream) {
  ForElement(type, [&](auto element) {
    using T = decltype(element);
    Launch(EmbedKernel<T>, dim3(rows), dim3(kThreads), 0, stream,
           static_cast<const T*>(table), tokens, hidden, out);
  });
}

void ExpandHeads(const ExpandJob* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    const int rows =
        Largest(list, n, [](const ExpandJob& j) { return j.x.rows; });
    Launch(ExpandKernel<std::decay_t<decltype(list)>>, dim3(rows, n),
           dim3(kThreads), 0, stream, list);
  });
}

void CopyOut(const CopyOutJob* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    const int rows =
        Largest(list, n, [](const CopyOutJob& j) { return j.rows.count; });
    Launch(CopyOutKernel<std::decay_t<decltype(list)>>, dim3(rows, n),
           dim3(kThreads), 0, stream, list);
  });
}

void Copy(const CopyJob* jobs, int count, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    const int64_t bytes =
        Largest(list, n, [](const CopyJob& j) { return j.bytes; });
    Launch(CopyKernel<std::decay_t<decltype(list)>>,
           dim3(static_cast<unsigned>(Blocks(bytes, kCopied)), n),
           dim3(kThreads), 0, stream, list);
  });
}

}  // namespace qk::cuda
