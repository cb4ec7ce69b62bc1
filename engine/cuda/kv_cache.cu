#include "engine/cuda/device.h"
#include "engine/cuda/job_list.h"
#include "engine/cuda/kernels.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kDims = 32;  // of a block

struct AppendShared {
  float k[kPageSize][kDims + 1];
};

template <typename T>
__device__ T* At(void* page, int64_t offset) {
  return reinterpret_cast<T*>(static_cast<char*>(page) + offset);
}

// A block has some rows of one page, one head and kDims of its dims. K goes
// through shared memory, which turns it: a warp reads dims and writes slots.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    AppendKernel(const float* k, const float* v, KvLayout layout, int head_dim,
                 const PageRows* tiles, void* const* pages) {
  auto& shared = Shared<AppendShared>();
  const PageRows tile = tiles[blockIdx.x];
  const int head = blockIdx.y, first = blockIdx.z * kDims;
  const int dims = min(kDims, head_dim - first);
  const int64_t in_page = int64_t{head} * head_dim * kPageSize;
  T* to_k = At<T>(pages[tile.page], layout.k_offset) + in_page;
  T* to_v = At<T>(pages[tile.page], layout.v_offset) + in_page;
  for (int i = threadIdx.x; i < tile.rows * kDims; i += kThreads) {
    const int r = i / kDims, d = i % kDims;
    if (d >= dims) continue;
    const int64_t from =
        (int64_t{tile.row + r} * layout.heads + head) * head_dim + first + d;
    shared.k[r][d] = k[from];
    Store(to_v, int64_t{tile.slot + r} * head_dim + first + d, v[from]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < dims * kPageSize; i += kThreads) {
    const int d = i / kPageSize, r = i % kPageSize;
    if (r >= tile.rows) continue;
    Store(to_k, int64_t{first + d} * kPageSize + tile.slot + r, shared.k[r][d]);
  }
}

// A block for each head of the copy.
template <typename T, typename List>
__global__ void __launch_bounds__(kThreads)
    CopyPageKernel(QK_ARGUMENTS(List) list, int head_dim) {
  const CopyPageJob& job = list.jobs[blockIdx.y];
  const int head = blockIdx.x;
  if (head >= job.to.heads) return;
  const int group = job.to.heads / job.from.heads;
  const int64_t from = int64_t{head / group} * head_dim * kPageSize;
  const int64_t to = int64_t{head} * head_dim * kPageSize;
  const T* from_k = static_cast<const T*>(job.from.k) + from;
  const T* from_v = static_cast<const T*>(job.from.v) + from;
  T* to_k = static_cast<T*>(job.to.k) + to;
  T* to_v = static_cast<T*>(job.to.v) + to;
  for (int i = threadIdx.x; i < head_dim * kPageSize; i += kThreads) {
    if (i % kPageSize < job.positions) to_k[i] = from_k[i];
    if (i < head_dim * job.positions) to_v[i] = from_v[i];
  }
}

}  // namespace

void AppendKv(const float* k, const float* v, const KvLayout& layout,
              ComputeType type, int head_dim, const PageRows* tiles, int count,
              void* const* pages, Stream stream) {
  const auto run = [&](auto kernel) {
    Launch(kernel, dim3(count, layout.heads, Blocks(head_dim, kDims)),
           dim3(kThreads), sizeof(AppendShared), stream, k, v, layout, head_dim,
           tiles, pages);
  };
  if (type == ComputeType::kF32) {
    run(AppendKernel<float>);
  } else {
    run(AppendKernel<uint16_t>);
  }
}

void CopyKvPages(const CopyPageJob* jobs, int count, int head_dim,
                 ComputeType type, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    using List = std::decay_t<decltype(list)>;
    const int heads =
        Largest(list, n, [](const CopyPageJob& j) { return j.to.heads; });
    const auto run = [&](auto kernel) {
      Launch(kernel, dim3(heads, n), dim3(kThreads), 0, stream, list, head_dim);
    };
    if (type == ComputeType::kF32) {
      run(CopyPageKernel<float, List>);
    } else {
      run(CopyPageKernel<uint16_t, List>);
    }
  });
}

}  // namespace qk::cuda
