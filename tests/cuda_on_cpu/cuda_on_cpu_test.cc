// Tests the emulation itself: what it computes, and that it notices what
// hardware would not do.
#include "tests/cuda_on_cpu/cuda_on_cpu.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace qk::cuda {
namespace {

constexpr uint32_t kAll = 0xFFFFFFFFu;

template <typename Kernel, typename... A>
void RunKernel(Kernel* kernel, dim3 grid, unsigned threads, size_t shared,
               const A&... args) {
  Launch(kernel, grid, dim3(threads), shared, nullptr, args...);
}

// Element (row, column) of a as PTX ISA's figures place it in registers.
void MmaKernel(const uint16_t* a, const uint16_t* b, float* d) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const auto pair = [](uint16_t low, uint16_t high) {
    return low | uint32_t{high} << 16;
  };
  uint32_t in_a[4], in_b[2];
  for (int r = 0; r < 4; ++r) {
    const uint16_t* from =
        a + (g + (r == 1 || r == 3 ? 8 : 0)) * 16 + 2 * t + (r >= 2 ? 8 : 0);
    in_a[r] = pair(from[0], from[1]);
  }
  for (int r = 0; r < 2; ++r) {
    const int k = 2 * t + 8 * r;
    in_b[r] = pair(b[k * 8 + g], b[(k + 1) * 8 + g]);
  }
  float c[4] = {1, 2, 3, 4};
  Mma(c, in_a, in_b);
  d[g * 8 + 2 * t] = c[0] - 1;
  d[g * 8 + 2 * t + 1] = c[1] - 2;
  d[(g + 8) * 8 + 2 * t] = c[2] - 3;
  d[(g + 8) * 8 + 2 * t + 1] = c[3] - 4;
}

TEST(CudaOnCpuTest, MmaMultiplies) {
  std::vector<uint16_t> a(16 * 16), b(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) a[i] = FloatToBf16(i % 13 - 6.0f);
  for (size_t i = 0; i < b.size(); ++i) b[i] = FloatToBf16(i % 7 - 3.0f);
  std::vector<float> d(16 * 8);
  RunKernel(MmaKernel, 1, 32, 0, a.data(), b.data(), d.data());
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      float want = 0;  // small whole numbers: exact
      for (int k = 0; k < 16; ++k) {
        want += Bf16ToFloat(a[m * 16 + k]) * Bf16ToFloat(b[k * 8 + n]);
      }
      EXPECT_EQ(d[m * 8 + n], want) << m << ", " << n;
    }
  }
}

struct Matrices {
  uint16_t m[4][8][8];
};

void LoadKernel(uint32_t* plain, uint32_t* transposed) {
  auto& shared = Shared<Matrices>();
  const int lane = threadIdx.x;
  for (int c = 0; c < 8; ++c) {
    shared.m[lane / 8][lane % 8][c] =
        static_cast<uint16_t>(lane / 8 * 64 + lane % 8 * 8 + c);
  }
  __syncthreads();
  uint32_t out[4];
  LoadMatrix4<false>(out, shared.m[lane / 8][lane % 8]);
  for (int r = 0; r < 4; ++r) plain[lane * 4 + r] = out[r];
  LoadMatrix4<true>(out, shared.m[lane / 8][lane % 8]);
  for (int r = 0; r < 4; ++r) transposed[lane * 4 + r] = out[r];
}

TEST(CudaOnCpuTest, LdmatrixLoadsAndTransposes) {
  std::vector<uint32_t> plain(128), transposed(128);
  RunKernel(LoadKernel, 1, 32, sizeof(Matrices), plain.data(),
            transposed.data());
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (unsigned r = 0; r < 4; ++r) {
      const unsigned i = lane / 4, j = lane % 4 * 2, base = r * 64;
      EXPECT_EQ(plain[lane * 4 + r], (base + i * 8 + j) | (base + i * 8 + j + 1)
                                                              << 16);
      EXPECT_EQ(transposed[lane * 4 + r],
                (base + j * 8 + i) | (base + (j + 1) * 8 + i) << 16);
    }
  }
}

// out: what is there before and after the first wait.
void CopyKernel(const float* from, float* out) {
  auto* shared = &Shared<float>();
  for (int stage = 0; stage < 2; ++stage) {
    CopyAsync16(shared + 4 * stage, from + 4 * stage);
    CopyAsyncCommit();
  }
  out[0] = shared[0];
  CopyAsyncWait<1>();
  out[1] = shared[0];
  out[2] = shared[4];
  CopyAsyncWait<0>();
  out[3] = shared[4];
}

TEST(CudaOnCpuTest, CopiesArriveAtTheirWait) {
  alignas(16) const float from[8] = {5, 0, 0, 0, 7, 0, 0, 0};
  std::vector<float> out(4);
  RunKernel(CopyKernel, 1, 1, 32, &from[0], out.data());
  EXPECT_NE(out[0], out[0]);
  EXPECT_EQ(out[1], 5);
  EXPECT_NE(out[2], out[2]);
  EXPECT_EQ(out[3], 7);
}

void OrderKernel(std::vector<int>* order) {
  order->push_back(blockIdx.x * 100 + threadIdx.x);
  const uint32_t odd = __ballot_sync(kAll, threadIdx.x % 2);
  const int any = __syncthreads_or(threadIdx.x == 5);
  const float sum = __shfl_xor_sync(kAll, 1.0f * threadIdx.x, 1);
  EXPECT_EQ(odd, 0xAAAAAAAAu & ((1u << blockDim.x) - 1));
  EXPECT_EQ(any != 0, blockDim.x > 5);
  EXPECT_EQ(sum, static_cast<float>(threadIdx.x ^ 1));
  EXPECT_EQ(__syncthreads_or(0), 0);
}

TEST(CudaOnCpuTest, OrdersDiffer) {
  cuda_on_cpu::Options& options = cuda_on_cpu::options();
  const auto run = [&](cuda_on_cpu::Order order, unsigned threads) {
    options.order = order;
    std::vector<int> seen;
    RunKernel(OrderKernel, 2, threads, 0, &seen);
    options.order = cuda_on_cpu::Order::kAscending;
    return seen;
  };
  EXPECT_EQ(run(cuda_on_cpu::Order::kAscending, 2),
            (std::vector<int>{0, 1, 100, 101}));
  EXPECT_EQ(run(cuda_on_cpu::Order::kDescending, 2),
            (std::vector<int>{101, 100, 1, 0}));
  std::vector<int> random = run(cuda_on_cpu::Order::kRandom, 16);
  EXPECT_FALSE(std::is_sorted(random.begin(), random.end()));
  std::sort(random.begin(), random.end());
  EXPECT_EQ(random, run(cuda_on_cpu::Order::kAscending, 16));
}

void UnevenBarrierKernel() {
  if (threadIdx.x > 0) __syncthreads();
}
void TwoBarriersKernel() {
  if (threadIdx.x > 0) {  // two places in the code
    __syncthreads();
  } else {
    __syncthreads();
    (void)threadIdx.x;
  }
}
void UnevenShuffleKernel() {
  if (threadIdx.x < 31) (void)__shfl_xor_sync(kAll, 1, 1);
}
void NotInMaskKernel() { (void)__shfl_xor_sync(1u, 1, 0); }
void LostCopyKernel(const float* from) { CopyAsync16(&Shared<float>(), from); }
void CrookedCopyKernel(const float* from) {
  CopyAsync16(&Shared<float>(), from + 1);
}

TEST(CudaOnCpuDeathTest, NoticesWhatHardwareWouldNotDo) {
  alignas(16) const float from[8] = {};
  EXPECT_DEATH(RunKernel(UnevenBarrierKernel, 1, 4, 0),
               "_test.cc:[0-9]+: thread 1 of");
  EXPECT_DEATH(RunKernel(TwoBarriersKernel, 1, 4, 0), "at different barriers");
  EXPECT_DEATH(RunKernel(UnevenShuffleKernel, 1, 32, 0),
               "waits for others for ever");
  EXPECT_DEATH(RunKernel(NotInMaskKernel, 1, 2, 0), "not in its own mask");
  EXPECT_DEATH(RunKernel(LostCopyKernel, 1, 1, 16, &from[0]),
               "before its copies have arrived");
  EXPECT_DEATH(RunKernel(CrookedCopyKernel, 1, 1, 16, &from[0]),
               "not aligned to 16 bytes");
  EXPECT_DEATH(RunKernel(NotInMaskKernel, 1, 1, 1 << 20), "more shared memory");
  EXPECT_DEATH(RunKernel(NotInMaskKernel, 1, 1025, 0), "1 to 1024 threads");
}

}  // namespace
}  // namespace qk::cuda
