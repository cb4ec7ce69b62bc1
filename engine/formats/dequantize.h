// Converts weights of any stored type to float32.
#ifndef QKSCOPE_ENGINE_FORMATS_DEQUANTIZE_H_
#define QKSCOPE_ENGINE_FORMATS_DEQUANTIZE_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "engine/formats/tensor_source.h"

namespace qk {

// The unit in which a type is stored, in elements and in bytes. The unit of
// F32, F16, BF16 and I32 is 1 element.
int64_t BlockElements(DType dtype);
int64_t BlockBytes(DType dtype);

// The type's name, for example "Q4_K".
absl::string_view DTypeName(DType dtype);

// Takes every type but I32. `elements` must be a multiple of
// BlockElements(dtype). `src` need not be aligned. The result is bit for bit
// what the Python package gguf computes, on every processor; a NaN stays a NaN,
// but its payload may change.
void Dequantize(DType dtype, const uint8_t* src, int64_t elements, float* dst);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_DEQUANTIZE_H_
