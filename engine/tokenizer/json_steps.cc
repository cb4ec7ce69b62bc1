#include "engine/tokenizer/json_steps.h"

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

constexpr int64_t kMaxSteps = 8;
// Bounds how much a replacement can lengthen a text.
constexpr size_t kMaxShortText = 16;

absl::StatusOr<std::string> CheckShort(const JsonValue& step,
                                       absl::string_view what,
                                       absl::string_view text,
                                       bool may_be_empty) {
  if ((may_be_empty || !text.empty()) && text.size() <= kMaxShortText) {
    return std::string(text);
  }
  return step.Error(absl::StrCat(what, ": must have ", may_be_empty ? 0 : 1,
                                 " to ", kMaxShortText, " bytes, got ",
                                 text.size()));
}

}  // namespace

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", Excerpt(text), "\"");
}

absl::StatusOr<std::vector<JsonValue>> Steps(const JsonValue& root,
                                             absl::string_view member,
                                             absl::string_view list) {
  std::vector<JsonValue> steps;
  if (!root.Find(member).has_value()) return steps;
  QK_ASSIGN_OR_RETURN(const JsonValue step, root.GetObject(member));
  QK_ASSIGN_OR_RETURN(const absl::string_view type, step.GetString("type"));
  if (type != "Sequence") return std::vector<JsonValue>{step};
  QK_ASSIGN_OR_RETURN(const JsonValue array, step.GetArray(list));
  if (array.size() > kMaxSteps) {
    return array.Error(absl::StrCat(array.size(), " steps, limit ", kMaxSteps));
  }
  QK_RETURN_IF_ERROR(array.ForEachElement([&](JsonValue element) {
    steps.push_back(element);
    return absl::OkStatus();
  }));
  return steps;
}

absl::Status Unsupported(const JsonValue& step, absl::string_view what,
                         absl::string_view type) {
  return step.Error(absl::StrCat("unsupported ", what, " ", Quoted(type)));
}

absl::StatusOr<std::string> StringPattern(const JsonValue& step,
                                          absl::string_view what) {
  QK_ASSIGN_OR_RETURN(const JsonValue pattern, step.GetObject("pattern"));
  if (!pattern.Find("String").has_value()) {
    return pattern.Error(
        absl::StrCat("unsupported ", what, " pattern, must be a String"));
  }
  QK_ASSIGN_OR_RETURN(const absl::string_view text,
                      pattern.GetString("String"));
  return CheckShort(pattern, "String", text, false);
}

absl::StatusOr<std::string> ShortText(const JsonValue& step,
                                      absl::string_view key,
                                      bool may_be_empty) {
  QK_ASSIGN_OR_RETURN(const absl::string_view text, step.GetString(key));
  return CheckShort(step, key, text, may_be_empty);
}

}  // namespace qk
