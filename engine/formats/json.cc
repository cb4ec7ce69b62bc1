#include "engine/formats/json.h"

#include <array>
#include <bit>
#include <cmath>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/json_internal.h"

namespace qk {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

bool IsPlainKey(absl::string_view key) {
  for (const char c : key) {
    if (!absl::ascii_isalnum(c) && c != '_' && c != '-') return false;
  }
  return !key.empty() && key.size() <= 64;
}

std::string PathOfMember(const std::string& path, absl::string_view key) {
  if (!IsPlainKey(key)) return absl::StrCat(path, "[\"", Excerpt(key), "\"]");
  return absl::StrCat(path, path.empty() ? "" : ".", key);
}

// Two handles are the same value if their bits are equal: an element is a
// pointer to the document and an index. JsonLimits::max_depth bounds the
// recursion.
bool FindPath(element at, const std::array<uint64_t, 2>& wanted,
              std::string* path) {
  if (std::bit_cast<std::array<uint64_t, 2>>(at) == wanted) return true;
  const std::string here = *path;
  simdjson::dom::object object;
  if (at.get(object) == simdjson::SUCCESS) {
    for (const auto member : object) {
      if (member.value.is_array() || member.value.is_object() ||
          std::bit_cast<std::array<uint64_t, 2>>(member.value) == wanted) {
        *path = PathOfMember(here, View(member.key));
        if (FindPath(member.value, wanted, path)) return true;
      }
    }
  }
  simdjson::dom::array array;
  if (at.get(array) == simdjson::SUCCESS) {
    int64_t index = 0;
    for (const element child : array) {
      if (child.is_array() || child.is_object() ||
          std::bit_cast<std::array<uint64_t, 2>>(child) == wanted) {
        *path = absl::StrCat(here, "[", index, "]");
        if (FindPath(child, wanted, path)) return true;
      }
      ++index;
    }
  }
  *path = here;
  return false;
}

// Whether there is a number and it has neither fraction nor exponent.
bool IsInteger(const std::optional<absl::string_view>& number) {
  return number.has_value() &&
         number->find_first_not_of("-0123456789") == absl::string_view::npos;
}

}  // namespace

JsonType JsonValue::type() const {
  switch (Access::Unwrap(*this).type()) {
    case element_type::ARRAY:
      return JsonType::kArray;
    case element_type::OBJECT:
      return JsonType::kObject;
    case element_type::STRING:
      return Access::PythonNumber(*this).has_value() ? JsonType::kNumber
                                                     : JsonType::kString;
    case element_type::BOOL:
      return JsonType::kBool;
    case element_type::NULL_VALUE:
      return JsonType::kNull;
    default:
      return JsonType::kNumber;
  }
}

absl::StatusOr<int64_t> JsonValue::AsInt64() const {
  const element at = Access::Unwrap(*this);
  int64_t value;
  if (at.get(value) == simdjson::SUCCESS) return value;
  if (at.is_uint64()) {
    return Access::WrongType(*this, absl::StrCat("at most ", INT64_MAX));
  }
  if (const auto number = Access::PythonNumber(*this); IsInteger(number)) {
    return Access::WrongType(*this, number->front() == '-'
                                        ? absl::StrCat("at least ", INT64_MIN)
                                        : absl::StrCat("at most ", INT64_MAX));
  }
  return Access::WrongType(*this, "an integer");
}

absl::StatusOr<uint64_t> JsonValue::AsUint64() const {
  const element at = Access::Unwrap(*this);
  uint64_t value;
  if (at.get(value) == simdjson::SUCCESS) return value;
  if (const auto number = Access::PythonNumber(*this); IsInteger(number)) {
    return Access::WrongType(*this, number->front() == '-'
                                        ? "at least 0"
                                        : absl::StrCat("at most ", UINT64_MAX));
  }
  return Access::WrongType(*this, at.is_int64() ? "at least 0" : "an integer");
}

absl::StatusOr<double> JsonValue::AsDouble() const {
  double value;
  if (Access::Unwrap(*this).get(value) == simdjson::SUCCESS &&
      std::isfinite(value)) {
    return value;
  }
  if (const auto number = Access::PythonNumber(*this);
      IsInteger(number) && absl::SimpleAtod(*number, &value) &&
      std::isfinite(value)) {
    return value;
  }
  return Access::WrongType(*this, "a finite number");
}

absl::StatusOr<bool> JsonValue::AsBool() const {
  bool value;
  if (Access::Unwrap(*this).get(value) == simdjson::SUCCESS) return value;
  return Access::WrongType(*this, "true or false");
}

absl::StatusOr<absl::string_view> JsonValue::AsString() const {
  std::string_view value;
  if (Access::Unwrap(*this).get(value) == simdjson::SUCCESS &&
      !Access::PythonNumber(*this).has_value()) {
    return View(value);
  }
  return Access::WrongType(*this, "a string");
}

std::optional<JsonValue> JsonValue::Find(absl::string_view key) const {
  element found;
  const auto error = Access::Unwrap(*this)
                         .at_key(std::string_view(key.data(), key.size()))
                         .get(found);
  if (error != simdjson::SUCCESS || found.is_null() ||
      shared_->IsHidden(found)) {
    return std::nullopt;
  }
  return Access::Wrap(shared_, found);
}

absl::StatusOr<JsonValue> JsonValue::Get(absl::string_view key) const {
  if (!is_object()) return Access::WrongType(*this, "an object");
  if (const auto found = Find(key)) return *found;
  return absl::InvalidArgumentError(absl::StrCat(
      shared_->label, ": ", PathOfMember(Path(), key), ": missing"));
}

absl::Status JsonValue::ForEachMember(
    absl::FunctionRef<absl::Status(absl::string_view, JsonValue)> visit) const {
  simdjson::dom::object object;
  if (Access::Unwrap(*this).get(object) != simdjson::SUCCESS) {
    return Access::WrongType(*this, "an object");
  }
  for (const auto member : object) {
    if (shared_->IsHidden(member.value)) continue;
    QK_RETURN_IF_ERROR(
        visit(View(member.key), Access::Wrap(shared_, member.value)));
  }
  return absl::OkStatus();
}

absl::Status JsonValue::ForEachElement(
    absl::FunctionRef<absl::Status(JsonValue)> visit) const {
  simdjson::dom::array array;
  if (Access::Unwrap(*this).get(array) != simdjson::SUCCESS) {
    return Access::WrongType(*this, "an array");
  }
  for (const element child : array) {
    QK_RETURN_IF_ERROR(visit(Access::Wrap(shared_, child)));
  }
  return absl::OkStatus();
}

int64_t JsonValue::size() const {
  const element at = Access::Unwrap(*this);
  int64_t count = 0;
  // simdjson's own size() stops at 2^24 - 1.
  simdjson::dom::object object;
  if (at.get(object) == simdjson::SUCCESS) {
    for (const auto member : object) count += !shared_->IsHidden(member.value);
  }
  simdjson::dom::array array;
  if (at.get(array) == simdjson::SUCCESS) {
    for (auto it = array.begin(); it != array.end(); ++it) ++count;
  }
  return count;
}

std::string JsonValue::Path() const {
  std::string path;
  QK_CHECK(FindPath(shared_->document.root(), element_, &path));
  return path;
}

absl::Status JsonValue::Error(absl::string_view message) const {
  const std::string path = Path();
  return absl::InvalidArgumentError(absl::StrCat(
      shared_->label, ": ", path, path.empty() ? "" : ": ", message));
}

std::string JsonValue::Describe() const {
  const element at = Access::Unwrap(*this);
  if (at.is_array() || at.is_object()) return std::string(TypeName(type()));
  if (const auto number = Access::PythonNumber(*this); number.has_value()) {
    return Excerpt(*number);
  }
  if (at.is_string()) return absl::StrCat("\"", Excerpt(*AsString()), "\"");
  return simdjson::minify(at);
}

}  // namespace qk
