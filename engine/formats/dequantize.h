// Weights of any stored type to float32.
#ifndef QKSCOPE_ENGINE_FORMATS_DEQUANTIZE_H_
#define QKSCOPE_ENGINE_FORMATS_DEQUANTIZE_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "engine/formats/tensor_source.h"

namespace qk {

// Elements and bytes of the unit a type is stored in; 1 element for F32, F16,
// BF16 and I32.
int64_t BlockElements(DType dtype);
int64_t BlockBytes(DType dtype);

// "Q4_K"
absl::string_view DTypeName(DType dtype);

// Any type but I32. `elements` must be a multiple of BlockElements(dtype).
// `src` need not be aligned. Bit for bit what the Python package gguf computes,
// on every processor; a NaN stays a NaN with no promise about its payload.
void Dequantize(DType dtype, const uint8_t* src, int64_t elements, float* dst);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_DEQUANTIZE_H_
