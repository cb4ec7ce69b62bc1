#include "client/files/json_writer.h"

#include <charconv>
#include <cmath>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/json_string.h"
#include "engine/base/utf8.h"
#include "google/protobuf/descriptor.h"

namespace qk::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

template <typename Float>
std::string FloatJson(Float value) {
  if (std::isnan(value)) return "\"NaN\"";
  if (std::isinf(value)) return value > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return std::string(buffer, end.ptr);
}

std::string EnumJson(const FieldDescriptor* field, int number) {
  const auto* value = field->enum_type()->FindValueByNumber(number);
  return value == nullptr ? absl::StrCat(number)
                          : absl::StrCat("\"", value->name(), "\"");
}

std::string BytesJson(const std::string& bytes) {
  return absl::StrCat("\"", absl::Base64Escape(bytes), "\"");
}

std::string ArrayJson(const std::vector<float>& values) {
  std::string json = "[";
  for (size_t i = 0; i < values.size(); ++i) {
    absl::StrAppend(&json, i > 0 ? "," : "", FloatJson(values[i]));
  }
  return json + "]";
}

// Writes element `i` of a repeated field. -1: the value of a singular field.
std::string ValueJson(const Message& message, const FieldDescriptor* field,
                      int i) {
  const Reflection& r = *message.GetReflection();
#define QK_GET(type) \
  (i < 0 ? r.Get##type(message, field) : r.GetRepeated##type(message, field, i))
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(QK_GET(Int32));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(QK_GET(Int64));
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(QK_GET(UInt32));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(QK_GET(UInt64));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return FloatJson(QK_GET(Float));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return FloatJson(QK_GET(Double));
    case FieldDescriptor::CPPTYPE_BOOL:
      return QK_GET(Bool) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumJson(field, QK_GET(EnumValue));
    case FieldDescriptor::CPPTYPE_STRING:
      return field->type() == FieldDescriptor::TYPE_BYTES
                 ? BytesJson(QK_GET(String))
                 : JsonString(QK_GET(String));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ToJson(QK_GET(Message));
  }
#undef QK_GET
  return "null";
}

std::string MapJson(const Message& message, const FieldDescriptor* field) {
  const Reflection& r = *message.GetReflection();
  const FieldDescriptor* key = field->message_type()->map_key();
  const FieldDescriptor* value = field->message_type()->map_value();
  std::string json = "{";
  for (int i = 0; i < r.FieldSize(message, field); ++i) {
    const Message& entry = r.GetRepeatedMessage(message, field, i);
    absl::StrAppend(&json, i > 0 ? "," : "", ValueJson(entry, key, -1), ":",
                    ValueJson(entry, value, -1));
  }
  return json + "}";
}

std::string RepeatedJson(const Message& message, const FieldDescriptor* field) {
  const int count = message.GetReflection()->FieldSize(message, field);
  std::string json = "[";
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&json, i > 0 ? "," : "", ValueJson(message, field, i));
  }
  return json + "]";
}

// Whether the field's bytes are float32 values.
bool IsFloatArray(const FieldDescriptor* field) {
  return field->containing_type() ==
             qkscope::v1::AggregateEntry::descriptor() &&
         field->type() == FieldDescriptor::TYPE_BYTES;
}

std::string FieldJson(const Message& message, const FieldDescriptor* field) {
  std::string json = absl::StrCat("\"", field->name(), "\":");
  if (IsFloatArray(field)) {
    const auto values = TensorValues(
        qkscope::v1::F32, message.GetReflection()->GetString(message, field));
    if (values.ok()) return json + ArrayJson(*values);
  }
  if (field->is_map()) return json + MapJson(message, field);
  if (field->is_repeated()) return json + RepeatedJson(message, field);
  json += ValueJson(message, field, -1);
  if (field->type() == FieldDescriptor::TYPE_BYTES) {
    const std::string bytes =
        message.GetReflection()->GetString(message, field);
    if (!FindInvalidUtf8(bytes).has_value()) {
      absl::StrAppend(&json, ",\"", field->name(),
                      "_utf8\":", JsonString(bytes));
    }
  }
  return json;
}

bool IsLayerData(const FieldDescriptor* field) {
  return field->containing_type() == qkscope::v1::Layer::descriptor() &&
         field->number() == qkscope::v1::Layer::kDataFieldNumber;
}

}  // namespace

std::string NumberJson(double value) { return FloatJson(value); }

std::string ToJson(const Message& message) {
  std::string json = "{";
  const auto* type = message.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const FieldDescriptor* field = type->field(i);
    const bool absent = field->has_presence() &&
                        !message.GetReflection()->HasField(message, field);
    if (absent || IsLayerData(field)) continue;
    absl::StrAppend(&json, json.size() > 1 ? "," : "",
                    FieldJson(message, field));
  }
  return json + "}";
}

std::string TensorToJson(int64_t seq, const Tensor& tensor) {
  std::string layer = ToJson(tensor.header);
  layer.pop_back();
  const absl::StatusOr<std::vector<float>> values =
      TensorValues(tensor.header.dtype(), tensor.data);
  if (tensor.header.form() == qkscope::v1::RAW || !values.ok()) {
    absl::StrAppend(&layer, ",\"data\":", BytesJson(tensor.data));
  } else {
    absl::StrAppend(&layer, ",\"values\":", ArrayJson(*values));
  }
  return absl::StrCat("{\"seq\":", seq, ",\"layer\":", layer, "}}");
}

}  // namespace qk::client
