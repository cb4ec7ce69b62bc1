// Tables for the numbers that a GGUF file uses.
#ifndef QKSCOPE_ENGINE_FORMATS_GGUF_TYPES_H_
#define QKSCOPE_ENGINE_FORMATS_GGUF_TYPES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/formats/gguf.h"
#include "engine/formats/tensor_source.h"

namespace qk {

// Maps ggml's tensor types (ggml.h, enum ggml_type). Returns nullopt for a
// number that is no type, and for a type that the engine does not compute with.
std::optional<DType> DTypeOfGgml(uint32_t type);

// Returns ggml's name of a type that is not served, or its number.
std::string GgmlTypeName(uint32_t type);

// The type's name, for example "u32" or "string".
absl::string_view TypeName(GgufType type);

// The fewest bytes that one value takes: its size, or the length field of a
// string. 0 for arrays.
uint64_t MinBytes(GgufType type);

// Element `index` of a value of an integer type; the caller checks the index.
// Returns nullopt if the element type is not an integer or the value is above
// 2^63 - 1.
std::optional<int64_t> IntegerAt(const GgufValue& value, uint64_t index);
// The same for float32 and float64.
std::optional<double> FloatAt(const GgufValue& value, uint64_t index);

// The text of a value of type kString.
absl::string_view StringOf(const GgufValue& value);

// The value as a message shows it: `17`, `"abc"`, `an array of 3 f32`.
std::string Describe(const GgufValue& value);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_GGUF_TYPES_H_
