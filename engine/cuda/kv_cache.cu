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
template <typename T>
__device__ T* At(const void* page, int64_t offset) {
  return reinterpret_cast<T*>(static_cast<const char*>(page) + offset);
}

// A block has some rows of one page, one head and kDims of its dims. K goes
// through shared memory, which turns it: a warp reads dims and writes slots.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    AppendKernel(const float* k, const float* v, KvPart layout, int head_dim,
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

// A block for each head of each page of each job.
template <typename T, typename List>
__global__ void __launch_bounds__(kThreads)
    FillKernel(QK_ARGUMENTS(List) list, KvPart cached, int head_dim) {
  const FillJob& job = list.jobs[blockIdx.z];
  const int head = blockIdx.x, page = blockIdx.y;
  const KvPart& to = job.fresh.layout;
  if (head >= to.heads || page >= job.fresh.pages) return;
  const int group = to.heads / cached.heads;
  const int64_t old_head = int64_t{head / group} * head_dim * kPageSize;
  const int64_t new_head = int64_t{head} * head_dim * kPageSize;
  char* base = static_cast<char*>(job.fresh.base) + page * job.fresh.stride;
  T* to_k = At<T>(base, to.k_offset) + new_head;
  T* to_v = At<T>(base, to.v_offset) + new_head;
  for (int i = threadIdx.x; i < head_dim * kPageSize; i += kThreads) {
    const int d = i % head_dim, slot = i / head_dim;
    const int row = page * kPageSize + slot - job.slot;
    if (row >= job.rows) return;
    const int64_t k = int64_t{d} * kPageSize + slot;
    if (row < 0) {  // only in the first page
      to_k[k] = (At<const T>(job.cached, cached.k_offset) + old_head)[k];
      to_v[i] = (At<const T>(job.cached, cached.v_offset) + old_head)[i];
    } else {
      const int64_t from = (int64_t{row} * to.heads + head) * head_dim + d;
      Store(to_k, k, job.k[from]);
      Store(to_v, i, job.v[from]);
    }
  }
}

}  // namespace

void AppendKv(const float* k, const float* v, const KvPart& layout,
              ComputeType type, int head_dim, const PageRows* tiles, int count,
              void* const* pages, Stream stream) {
  ForElement(type, [&](auto element) {
    Launch(AppendKernel<decltype(element)>,
           dim3(count, layout.heads, Blocks(head_dim, kDims)), dim3(kThreads),
           sizeof(AppendShared), stream, k, v, layout, head_dim, tiles, pages);
  });
}

void FillFreshPages(const FillJob* jobs, int count, const KvPart& layout,
                    ComputeType type, int head_dim, Stream stream) {
  ForJobs(jobs, count, [&](const auto& list, int n) {
    using List = std::decay_t<decltype(list)>;
    const int heads =
        Largest(list, n, [](const FillJob& j) { return j.fresh.layout.heads; });
    const int pages =
        Largest(list, n, [](const FillJob& j) { return j.fresh.pages; });
    ForElement(type, [&](auto element) {
      Launch(FillKernel<decltype(element), List>, dim3(heads, pages, n),
             dim3(kThreads), 0, stream, list, layout, head_dim);
    });
  });
}

}  // namespace qk::cuda
