#include "engine/formats/gguf_types.h"

#include "absl/strings/str_cat.h"
#include "engine/formats/byte_reader.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

template <typename T>
T At(const GgufValue& value, uint64_t index) {
  return LoadLittleEndian<T>(value.data.data() + index * sizeof(T));
}

}  // namespace

std::optional<DType> DTypeOfGgml(uint32_t type) {
  switch (type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 10:
      return DType::kQ2_K;
    case 11:
      return DType::kQ3_K;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 20:
      return DType::kIQ4_NL;
    case 23:
      return DType::kIQ4_XS;
    case 30:
      return DType::kBF16;
    case 39:
      return DType::kMXFP4;
    default:
      return std::nullopt;
  }
}

std::string GgmlTypeName(uint32_t type) {
  switch (type) {
    case 9:
      return "Q8_1";
    case 15:
      return "Q8_K";
    case 16:
      return "IQ2_XXS";
    case 17:
      return "IQ2_XS";
    case 18:
      return "IQ3_XXS";
    case 19:
      return "IQ1_S";
    case 21:
      return "IQ3_S";
    case 22:
      return "IQ2_S";
    case 24:
      return "I8";
    case 25:
      return "I16";
    case 26:
      return "I32";
    case 27:
      return "I64";
    case 28:
      return "F64";
    case 29:
      return "IQ1_M";
    case 34:
      return "TQ1_0";
    case 35:
      return "TQ2_0";
    case 40:
      return "NVFP4";
    case 41:
      return "Q1_0";
    default:
      return absl::StrCat("number ", type);
  }
}

absl::string_view TypeName(GgufType type) {
  constexpr absl::string_view kNames[] = {
      "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
      "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<uint32_t>(type)];
}

uint64_t MinBytes(GgufType type) {
  constexpr uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
  return kBytes[static_cast<uint32_t>(type)];
}

std::optional<int64_t> IntegerAt(const GgufValue& value, uint64_t index) {
  switch (value.element) {
    case GgufType::kUint8:
      return At<uint8_t>(value, index);
    case GgufType::kInt8:
      return At<int8_t>(value, index);
    case GgufType::kUint16:
      return At<uint16_t>(value, index);
    case GgufType::kInt16:
      return At<int16_t>(value, index);
    case GgufType::kUint32:
      return At<uint32_t>(value, index);
    case GgufType::kInt32:
      return At<int32_t>(value, index);
    case GgufType::kInt64:
      return At<int64_t>(value, index);
    case GgufType::kUint64: {
      const uint64_t number = At<uint64_t>(value, index);
      if (number > INT64_MAX) return std::nullopt;
      return static_cast<int64_t>(number);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> FloatAt(const GgufValue& value, uint64_t index) {
  switch (value.element) {
    case GgufType::kFloat32:
      return At<float>(value, index);
    case GgufType::kFloat64:
      return At<double>(value, index);
    default:
      return std::nullopt;
  }
}

absl::string_view StringOf(const GgufValue& value) {
  return {reinterpret_cast<const char*>(value.data.data()) + sizeof(uint64_t),
          value.data.size() - sizeof(uint64_t)};
}

std::string Describe(const GgufValue& value) {
  if (value.type == GgufType::kArray) {
    return absl::StrCat("an array of ", value.count, " ",
                        TypeName(value.element));
  }
  if (value.type == GgufType::kString) {
    return absl::StrCat("\"", Excerpt(StringOf(value)), "\"");
  }
  if (value.type == GgufType::kBool) return value.data[0] ? "true" : "false";
  if (value.type == GgufType::kUint64) {
    return absl::StrCat(At<uint64_t>(value, 0));
  }
  if (const auto integer = IntegerAt(value, 0)) return absl::StrCat(*integer);
  return absl::StrCat(*FloatAt(value, 0));
}

}  // namespace qk
