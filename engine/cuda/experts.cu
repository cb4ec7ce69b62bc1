#include <cmath>

#include "engine/cuda/device.h"
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.h"

namespace qk::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

// Whether expert a ranks before expert b: the more probable first, then the
// lower index; NaNs last.
__device__ bool RanksBefore(float x, int a, float y, int b) {
  if (x > y || x < y) return x > y;
  const bool nan_x = x != x, nan_y = y != y;
  return nan_x != nan_y ? nan_y : a < b;
}

// A warp for each row.
__global__ void __launch_bounds__(kThreads)
    RouteKernel(const float* logits, int rows, int experts, int chosen,
                Route* routes) {
  const int row = blockIdx.x * kWarps + threadIdx.x / 32;
  if (row >= rows) return;  // a whole warp
  const int lane = threadIdx.x % 32;
  const float* x = logits + int64_t{row} * experts;
  float max = -INFINITY;
  for (int e = lane; e < experts; e += 32) max = fmaxf(max, x[e]);
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, lanes));
  }
  float sum = 0;
  for (int e = lane; e < experts; e += 32) sum += expf(x[e] - max);
  sum = WarpSum(sum);
  for (int e = lane; e < experts; e += 32) {
    int place = 0;
    for (int i = 0; i < experts; ++i) place += RanksBefore(x[i], i, x[e], e);
    if (place >= chosen) continue;
    routes[int64_t{row} * chosen + place] = {e, expf(x[e] - max) / sum};
  }
}

// A block for each of the rows.
__global__ void __launch_bounds__(kThreads)
    GatherKernel(const float* x, const int32_t* rows, int dim, Outputs out) {
  const float* from = x + int64_t{rows[blockIdx.x]} * dim;
  for (int i = threadIdx.x; i < dim; i += kThreads) {
    Write(out, int64_t{blockIdx.x} * dim + i, from[i]);
  }
}

constexpr int kGroupThreads = 512;

// A warp for each of several experts. Calls found(slot, how many slots of the
// expert come before) for each of its slots, and returns their number.
template <typename Found>
__device__ int ForSlots(const Route* routes, int slots, int expert,
                        const Found& found) {
  const int lane = threadIdx.x % 32;
  int count = 0;
  for (int first = 0; first < slots; first += 32) {
    const int slot = first + lane;
    const bool own = slot < slots && routes[slot].expert == expert;
    const uint32_t lanes = __ballot_sync(kAllLanes, own);
    if (own) found(slot, count + __popc(lanes & ((1u << lane) - 1)));
    count += __popc(lanes);
  }
  return count;
}

// One block.
__global__ void __launch_bounds__(kGroupThreads)
    GroupKernel(const Route* routes, int slots, int chosen, int experts,
                ExpertPlaces to) {
  const int warp = threadIdx.x / 32;
  for (int e = warp; e < experts; e += kGroupThreads / 32) {
    const int count = ForSlots(routes, slots, e, [](int, int) {});
    if (threadIdx.x % 32 == 0) to.begin[e + 1] = count;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    to.begin[0] = 0;
    for (int e = 0; e < experts; ++e) to.begin[e + 1] += to.begin[e];
  }
  __syncthreads();
  for (int e = warp; e < experts; e += kGroupThreads / 32) {
    const int begin = to.begin[e];
    ForSlots(routes, slots, e, [&](int slot, int before) {
      to.row[begin + before] = slot / chosen;
      to.of_route[slot] = begin + before;
    });
  }
}

// The slot of a row whose expert is the least above `last`.
__device__ int NextSlot(const Route* routes, int chosen, int last) {
  int next = -1;
  for (int i = 0; i < chosen; ++i) {
    const int expert = routes[i].expert;
    if (expert > last && (next < 0 || expert < routes[next].expert)) next = i;
  }
  return next;
}

// A block for each row.
__global__ void __launch_bounds__(kThreads)
    CombineKernel(const float* x, const Route* routes, ExpertPlaces places,
                  int chosen, int dim, float* out) {
  const int64_t first = int64_t{blockIdx.x} * chosen;
  for (int d = threadIdx.x; d < dim; d += kThreads) {
    float sum = 0;
    int last = -1;
    for (int i = 0; i < chosen; ++i) {
      const int slot = NextSlot(routes + first, chosen, last);
      last = routes[first + slot].expert;
      sum += routes[first + slot].weight *
             x[int64_t{places.of_route[first + slot]} * dim + d];
    }
    out[int64_t{blockIdx.x} * dim + d] = sum;
  }
}

}  // namespace

void GroupRows(const Route* routes, int rows, int chosen, int experts,
               const ExpertPlaces& to, Stream stream) {
  Launch(GroupKernel, dim3(1), dim3(kGroupThreads), 0, stream, routes,
         rows * chosen, chosen, experts, to);
}

void CombineExperts(const float* x, const Route* routes,
                    const ExpertPlaces& places, int rows, int chosen, int dim,
                    float* out, Stream stream) {
  Launch(CombineKernel, dim3(rows), dim3(kThreads), 0, stream, x, routes,
         places, chosen, dim, out);
}

void RouteExperts(const float* logits, int rows, int experts, int chosen,
                  Route* routes, Stream stream) {
  Launch(RouteKernel, dim3(Blocks(rows, kWarps)), dim3(kThreads), 0, stream,
         logits, rows, experts, chosen, routes);
}

void GatherRows(const float* x, const int32_t* rows, int count, int dim,
                Outputs out, Stream stream) {
  Launch(GatherKernel, dim3(count), dim3(kThreads), 0, stream, x, rows, dim,
         out);
}

}  // namespace qk::cuda
