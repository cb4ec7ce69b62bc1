// What the numbers in a GGUF file stand for.
#ifndef QKSCOPE_ENGINE_FORMATS_GGUF_TYPES_H_
#define QKSCOPE_ENGINE_FORMATS_GGUF_TYPES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/formats/gguf.h"
#include "engine/formats/tensor_source.h"

namespace qk {

// ggml's tensor types (ggml.h, enum ggml_type); nullopt for those we do not
// compute with and for numbers that are none.
std::optional<DType> DTypeOfGgml(uint32_t type);

// "u32", "string"
absl::string_view TypeName(GgufType type);

// The fewest bytes one value takes: its size, or for a string its length field.
// 0 for arrays.
uint64_t MinBytes(GgufType type);

// Element `index` (checked by the caller) of a value of an integer type;
// nullopt if the element type is no integer or the value is above 2^63 - 1.
std::optional<int64_t> IntegerAt(const GgufValue& value, uint64_t index);
// The same for float32 and float64.
std::optional<double> FloatAt(const GgufValue& value, uint64_t index);

// The text of a value of type kString.
absl::string_view StringOf(const GgufValue& value);

// The value for a message: `17`, `"abc"`, `an array of 3 f32`.
std::string Describe(const GgufValue& value);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_GGUF_TYPES_H_
