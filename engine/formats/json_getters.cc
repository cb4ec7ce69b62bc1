// JsonValue's Get* functions: each looks a member up and converts it, so that a
// field costs one line.
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/json.h"

namespace qk {

absl::StatusOr<int64_t> JsonValue::GetInt64(absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const JsonValue value, Get(key));
  return value.AsInt64();
}

absl::StatusOr<int64_t> JsonValue::GetInt64InRange(absl::string_view key,
                                                   int64_t min,
                                                   int64_t max) const {
  QK_ASSIGN_OR_RETURN(const JsonValue value, Get(key));
  QK_ASSIGN_OR_RETURN(const int64_t number, value.AsInt64());
  if (number < min || number > max) {
    return value.Error(
        absl::StrCat("must be in [", min, ", ", max, "], got ", number));
  }
  return number;
}

absl::StatusOr<double> JsonValue::GetDouble(absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const JsonValue value, Get(key));
  return value.AsDouble();
}

absl::StatusOr<bool> JsonValue::GetBool(absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const JsonValue value, Get(key));
  return value.AsBool();
}

absl::StatusOr<absl::string_view> JsonValue::GetString(
    absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const JsonValue value, Get(key));
  return value.AsString();
}

absl::StatusOr<JsonValue> JsonValue::GetArray(absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const JsonValue value, Get(key));
  if (value.is_array()) return value;
  return value.Error(absl::StrCat("must be an array, got ", value.Describe()));
}

absl::StatusOr<JsonValue> JsonValue::GetObject(absl::string_view key) const {
  QK_ASSIGN_OR_RETURN(const JsonValue value, Get(key));
  if (value.is_object()) return value;
  return value.Error(absl::StrCat("must be an object, got ", value.Describe()));
}

absl::StatusOr<int64_t> JsonValue::GetInt64Or(absl::string_view key,
                                              int64_t missing) const {
  return Find(key).has_value() ? GetInt64(key) : missing;
}

absl::StatusOr<int64_t> JsonValue::GetInt64InRangeOr(absl::string_view key,
                                                     int64_t min, int64_t max,
                                                     int64_t missing) const {
  return Find(key).has_value() ? GetInt64InRange(key, min, max) : missing;
}

absl::StatusOr<double> JsonValue::GetDoubleOr(absl::string_view key,
                                              double missing) const {
  return Find(key).has_value() ? GetDouble(key) : missing;
}

absl::StatusOr<bool> JsonValue::GetBoolOr(absl::string_view key,
                                          bool missing) const {
  return Find(key).has_value() ? GetBool(key) : missing;
}

absl::StatusOr<absl::string_view> JsonValue::GetStringOr(
    absl::string_view key, absl::string_view missing) const {
  return Find(key).has_value() ? GetString(key) : missing;
}

}  // namespace qk
