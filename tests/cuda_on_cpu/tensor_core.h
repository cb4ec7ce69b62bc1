// The instructions of engine/cuda/ptx.h: tensor cores, ldmatrix, cp.async and
// conversions.
#ifndef QKSCOPE_TESTS_CUDA_ON_CPU_TENSOR_CORE_H_
#define QKSCOPE_TESTS_CUDA_ON_CPU_TENSOR_CORE_H_

#include <bit>
#include <cstdint>

#include "engine/base/half.h"
#include "tests/cuda_on_cpu/block.h"

namespace qk::cuda {

inline uint32_t FloatBits(float x) { return std::bit_cast<uint32_t>(x); }
inline float BitsToFloat(uint32_t x) { return std::bit_cast<float>(x); }
inline float Bf16ToFloat(uint16_t bits) { return FromBF16(bits); }
inline uint16_t FloatToBf16(float x) {
  return x == x ? RoundToBF16(x) : uint16_t{0x7FFF};  // as hardware's NaN
}
inline uint32_t FloatsToBf16(float low, float high) {
  return FloatToBf16(low) | uint32_t{FloatToBf16(high)} << 16;
}
inline uint16_t FloatToF16(float x) { return RoundToF16(x); }

// PTX's mma.sync, with its fragment layouts (PTX ISA, "Matrix Fragments for
// mma.m16n8k16").
void Mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
         cuda_on_cpu::Where where = cuda_on_cpu::Where::Here());

// PTX's ldmatrix.
void LoadMatrices(uint32_t (&out)[4], const uint16_t* row, bool transposed,
                  cuda_on_cpu::Where where);

template <bool kTransposed>
void LoadMatrix4(uint32_t (&out)[4], const uint16_t* row,
                 cuda_on_cpu::Where where = cuda_on_cpu::Where::Here()) {
  LoadMatrices(out, row, kTransposed, where);
}

inline void LoadShared16(uint32_t (&out)[4], const uint16_t* from) {
  for (int i = 0; i < 4; ++i) {
    out[i] = from[2 * i] | uint32_t{from[2 * i + 1]} << 16;
  }
}

// PTX's cp.async. A copy arrives when its thread waits for it and no earlier;
// until then its place holds NaNs, so that a missing wait shows.
void CopyAsync16(void* to, const void* from,
                 cuda_on_cpu::Where where = cuda_on_cpu::Where::Here());
void CommitCopies();
void WaitForCopies(int groups_left);

template <int kGroupsLeft>
void CopyAsyncWait() {
  WaitForCopies(kGroupsLeft);
}
inline void CopyAsyncCommit() { CommitCopies(); }

}  // namespace qk::cuda

#endif  // QKSCOPE_TESTS_CUDA_ON_CPU_TENSOR_CORE_H_
