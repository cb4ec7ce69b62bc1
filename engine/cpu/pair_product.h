// Products of bf16 values that are multiplied in pairs, as the processors'
// instructions for bf16 do.
//
// c (rows, n) = a (rows, k) x b (k, n), summed in float32. b lies in
// pairs of its rows: (k / 2, n, 2). a is rounded to bf16 in the kernel's own
// form. If k is odd, its last pair ends with zeros.
//
// The kernels "FMA" and "AVX512BF16" give the same bytes. Each element is one
// chain of fused multiply-adds over k in the order 1, 0, 3, 2, 5, 4, ...:
// VDPBF16PS adds the second product of a pair first. Subnormal numbers, read or
// written, count as zero. (Without fused multiply-adds, on SSE4, FMA has other
// bytes.) "AMX" is a chain of another kind (tiles_product.h). All chains depend
// neither on the number of rows nor on that of columns.
#ifndef QKSCOPE_ENGINE_CPU_PAIR_PRODUCT_H_
#define QKSCOPE_ENGINE_CPU_PAIR_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/cpu/panels.h"

namespace qk::cpu {

struct PairProduct {
  const void* a = nullptr;  // made by PairKernel::round
  size_t a_stride = 0;      // elements from row to row
  size_t rows = 0;
  const uint16_t* b = nullptr;
  size_t b_stride = 0;      // values from one row of pairs to the next
  size_t panel_stride = 0;  // values from panel to panel
  size_t panels = 0;        // of `width` columns each
  size_t pairs = 0;         // k / 2, a multiple of `pair_step`
  Into into = Into::kSet;
  const float* bias = nullptr;  // (panels, width), added to the sums; or null
  float* c = nullptr;           // its panels lie side by side
  size_t c_stride = 0;
};

struct PairKernel {
  const char* name;
  size_t width;      // columns of a panel
  size_t pair_step;  // pairs that one instruction takes
  size_t a_bytes;    // of an element of a
  // out (n) = x (n), rounded. An odd n gets a zero behind it.
  void (*round)(const float* x, size_t n, void* out);
  void (*multiply)(const PairProduct& product);
};

// On every processor; its own instruction set is that of Highway.
const PairKernel& FmaPairKernel();
// VDPBF16PS. Null: this processor or build has none.
const PairKernel* Avx512Bf16PairKernel();
// TDPBF16PS. Null: this processor, kernel or build has none.
const PairKernel* AmxPairKernel();

// Those that this machine has, FMA first.
std::vector<const PairKernel*> PairKernels();
// The one that multiplied fastest when it was first asked for. VDPBF16PS has
// the bytes of FMA, so that the choice shows in the speed alone; AMX, of which
// it does, is 4 times faster than both where it is there.
const PairKernel& FastestPairKernel();

}  // namespace qk::cpu

#endif  // QKSCOPE_ENGINE_CPU_PAIR_PRODUCT_H_
