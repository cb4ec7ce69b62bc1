// Reads every JSON value as every type, and looks up every path; with JSON's
// numbers and with those of Python's json module.
#include <cmath>

#include "absl/strings/string_view.h"
#include "engine/base/utf8.h"
#include "engine/formats/json.h"
#include "engine/formats/json_syntax.h"
#include "tests/fuzz/fuzz.h"

namespace {

template <typename T>
bool Check(const absl::StatusOr<T>& value) {
  if (!value.ok()) qk::fuzz::CheckMessage(value.status());
  return value.ok();
}

// Finding a path is linear, so only the first values look up theirs.
void Visit(qk::JsonValue value, int& budget) {
  if (--budget < 0) return;
  const int as_types = Check(value.AsInt64()) + Check(value.AsBool()) +
                       Check(value.AsString()) + value.is_null() +
                       value.is_array() + value.is_object();
  QK_CHECK(as_types == (value.is_number() && !value.AsInt64().ok() ? 0 : 1));
  Check(value.AsUint64());
  const auto number = value.AsDouble();
  QK_CHECK(!Check(number) || std::isfinite(*number));
  Check(value.GetInt64("a"));
  (void)value.ForEachMember([&](absl::string_view key, qk::JsonValue member) {
    if (budget > 0) {
      QK_CHECK(value.Find(key).has_value() == !member.is_null());
    }
    Visit(member, budget);
    return absl::OkStatus();
  });
  (void)value.ForEachElement([&](qk::JsonValue element) {
    Visit(element, budget);
    return absl::OkStatus();
  });
}

// Returns whether the text is JSON with such numbers.
bool Parse(absl::string_view text, qk::JsonNumbers numbers) {
  qk::JsonLimits limits;
  limits.numbers = numbers;
  const auto document = qk::JsonDocument::Parse("m", text, limits);
  if (!document.ok()) {
    qk::fuzz::CheckMessage(document.status());
    return false;
  }
  QK_CHECK(!qk::FindJsonSyntaxError(text, numbers).has_value());
  QK_CHECK(!qk::FindInvalidUtf8(text).has_value());
  int budget = 100;
  Visit(document->root(), budget);
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const bool strict = Parse(text, qk::JsonNumbers::kStrict);
  const bool python = Parse(text, qk::JsonNumbers::kPython);
  QK_CHECK(!strict || python);
  return 0;
}
