// The instructions that C++ has no name for. tests/cuda_on_cpu/tensor_core.h
// has the same functions for a CPU.
#ifndef QKSCOPE_ENGINE_CUDA_PTX_H_
#define QKSCOPE_ENGINE_CUDA_PTX_H_

#include <cstdint>

namespace qk::cuda {

__device__ inline uint32_t FloatBits(float x) { return __float_as_uint(x); }
__device__ inline float BitsToFloat(uint32_t x) { return __uint_as_float(x); }
__device__ inline float Bf16ToFloat(uint16_t bits) {
  return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

// Rounds to nearest, ties to even. Any NaN becomes 0x7FFF.
__device__ inline uint16_t FloatToBf16(float x) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
__device__ inline uint32_t FloatsToBf16(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
__device__ inline uint16_t FloatToF16(float x) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

// d += a b of one warp: a (16, 16) and b (16, 8) in bf16, d (16, 8) in float32.
// With g = lane / 4 and t = lane % 4, register r of a holds columns
// 2 t + 8 (r / 2) and the next of row g + 8 (r % 2); register r of b holds rows
// 2 t + 8 r and the next of column g; d[i] is row g + 8 (i / 2), column
// 2 t + i % 2.
__device__ inline void Mma(float (&d)[4], const uint32_t (&a)[4],
                           const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit values in shared memory: lane l gives the
// address of row l % 8 of matrix l / 8; register r gets two neighbours of
// matrix r, of its row lane / 4 or, transposed, of its column lane / 4.
template <bool kTransposed>
__device__ inline void LoadMatrix4(uint32_t (&out)[4], const uint16_t* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
        : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
        : "r"(at)
        : "memory");
  } else {
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
        : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
        : "r"(at)
        : "memory");
  }
}

// Reads 16 bytes of shared memory.
__device__ inline void LoadShared16(uint32_t (&out)[4], const uint16_t* from) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(from));
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(at)
               : "memory");
}

// Copies 16 bytes from global to shared memory, some time before the wait.
__device__ inline void CopyAsync16(void* to, const void* from) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(at),
               "l"(from)
               : "memory");
}
// Ends a group of copies.
__device__ inline void CopyAsyncCommit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
// Waits for this thread's groups, all but the last kGroupsLeft of them. Other
// threads see the copies after a barrier.
template <int kGroupsLeft>
__device__ inline void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kGroupsLeft) : "memory");
}

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_PTX_H_
