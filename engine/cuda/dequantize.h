// Weights as files store them become float32 or bf16: bit for bit what
// engine/formats gives, rounded to nearest, ties to even; a NaN stays one. All
// pointers are to device memory; `out` is float32 or bf16, by the type.
#ifndef QKSCOPE_ENGINE_CUDA_DEQUANTIZE_H_
#define QKSCOPE_ENGINE_CUDA_DEQUANTIZE_H_

#include <cstdint>

#include "engine/base/dtype.h"
#include "engine/cuda/stream.h"
#include "engine/types/compute_type.h"

namespace qk::cuda {

// out (elements) = the values of whole blocks, of any type but I32. `blocks`
// need not be aligned.
void Dequantize(DType stored, const uint8_t* blocks, int64_t elements,
                ComputeType type, void* out, Stream stream);

// Some outputs of a layer of 4-bit integers: qk::Int4Rows says what they mean.
struct Int4Part {
  bool words_of_inputs = false;
  const uint32_t* words = nullptr;    // (in / 8, outputs) or (in, outputs / 8)
  const float* scales = nullptr;      // (groups, outputs)
  const uint8_t* zeros = nullptr;     // (groups, outputs)
  const int32_t* group_of = nullptr;  // (in), or null
  int group_size = 0;
  int outputs = 0;  // a multiple of 8
  int in = 0;
};
// out (outputs, in).
void UnpackInt4(const Int4Part& part, ComputeType type, void* out,
                Stream stream);

}  // namespace qk::cuda

#endif  // QKSCOPE_ENGINE_CUDA_DEQUANTIZE_H_
