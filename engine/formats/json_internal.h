// What the json*.cc files share. json.h must not include simdjson's header.
#ifndef QKSCOPE_ENGINE_FORMATS_JSON_INTERNAL_H_
#define QKSCOPE_ENGINE_FORMATS_JSON_INTERNAL_H_

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/json.h"

namespace qk {

// abseil's string_view is not the standard one here.
inline absl::string_view View(std::string_view s) {
  return {s.data(), s.size()};
}

inline absl::string_view TypeName(JsonType type) {
  switch (type) {
    case JsonType::kNull:
      return "null";
    case JsonType::kBool:
      return "a boolean";
    case JsonType::kNumber:
      return "a number";
    case JsonType::kString:
      return "a string";
    case JsonType::kArray:
      return "an array";
    case JsonType::kObject:
      return "an object";
  }
  return "";
}

struct JsonValue::Shared {
  std::string label;
  // A string that begins with this is a number that simdjson does not hold
  // (QuotePythonNumbers). Empty: there are none.
  std::string number_mark;
  simdjson::dom::document document;
  // JsonDocument::Hide's: there are few.
  std::vector<std::array<uint64_t, 2>> hidden;

  bool IsHidden(simdjson::dom::element at) const {
    return !hidden.empty() &&
           std::find(hidden.begin(), hidden.end(),
                     std::bit_cast<std::array<uint64_t, 2>>(at)) !=
               hidden.end();
  }
};

struct JsonValue::Access {
  static JsonValue Wrap(const Shared* shared, simdjson::dom::element at) {
    JsonValue value;
    value.shared_ = shared;
    value.element_ = std::bit_cast<std::array<uint64_t, 2>>(at);
    return value;
  }
  static simdjson::dom::element Unwrap(const JsonValue& value) {
    QK_CHECK(value.shared_ != nullptr);
    return std::bit_cast<simdjson::dom::element>(value.element_);
  }
  // The number as the file has it, if it is one that simdjson does not hold.
  static std::optional<absl::string_view> PythonNumber(const JsonValue& value) {
    std::string_view text;
    const std::string& mark = value.shared_->number_mark;
    if (mark.empty() || Unwrap(value).get(text) != simdjson::SUCCESS ||
        text.substr(0, mark.size()) != mark) {
      return std::nullopt;
    }
    return View(text.substr(mark.size()));
  }
  static absl::Status WrongType(const JsonValue& value,
                                absl::string_view expected) {
    return value.Error(
        absl::StrCat("must be ", expected, ", got ", value.Describe()));
  }
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_JSON_INTERNAL_H_
