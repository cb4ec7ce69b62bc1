#include "client/qkctl/flags/text_parse.h"

#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "engine/base/nearest_name.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

constexpr size_t kMaxListEntries = 65536;

std::vector<std::string> NamesOf(const google::protobuf::EnumDescriptor* type) {
  std::vector<std::string> names;
  for (int i = 0; i < type->value_count(); ++i) {
    const auto* value = type->value(i);
    if (value->number() == 0) continue;
    names.push_back(absl::AsciiStrToLower(value->name()));
  }
  return names;
}

// Appends a number ("7") or a range ("0-3").
absl::Status AppendRange(const std::string& text, std::vector<int32_t>* out) {
  const std::vector<std::string> ends =
      absl::StrSplit(text, absl::MaxSplits('-', 1));
  int32_t first;
  if (!absl::SimpleAtoi(ends[0], &first) || first < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not a number or a range such as 0-3"));
  }
  int32_t last = first;
  if (ends.size() == 2 && (!absl::SimpleAtoi(ends[1], &last) || last < first)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is not a range: its end must be a number >= ", first));
  }
  const size_t count = static_cast<size_t>(last) - first + 1;
  if (out->size() + count > kMaxListEntries) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", kMaxListEntries, " numbers"));
  }
  for (size_t i = 0; i < count; ++i) {
    out->push_back(static_cast<int32_t>(first + i));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> SplitText(const std::string& text,
                                   const char* separators) {
  return absl::StrSplit(text, absl::ByAnyChar(separators));
}

absl::StatusOr<int32_t> ParseInt(const std::string& text) {
  int32_t value;
  if (absl::SimpleAtoi(text, &value)) return value;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a whole number"));
}

absl::StatusOr<uint64_t> ParseUnsigned(const std::string& text) {
  uint64_t value;
  if (absl::SimpleAtoi(text, &value)) return value;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a whole number >= 0"));
}

absl::StatusOr<double> ParseNumber(const std::string& text) {
  double value;
  if (absl::SimpleAtod(text, &value) && std::isfinite(value)) return value;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a finite number"));
}

absl::StatusOr<bool> ParseBool(const std::string& text) {
  bool value;
  if (absl::SimpleAtob(text, &value)) return value;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not true or false"));
}

absl::StatusOr<std::vector<int32_t>> ParseIntList(const std::string& text) {
  std::vector<int32_t> numbers;
  for (const std::string& part : SplitText(text, ",+")) {
    absl::Status status =
        AppendRange(std::string(absl::StripAsciiWhitespace(part)), &numbers);
    if (!status.ok()) return status;
  }
  return numbers;
}

absl::StatusOr<v1::Span> ParseSpan(const std::string& text) {
  const std::vector<std::string> ends = absl::StrSplit(text, ':');
  v1::Span span;
  bool ok = ends.size() == 2;
  int32_t number;
  if (ok && !ends[0].empty()) {
    ok = absl::SimpleAtoi(ends[0], &number) && number >= 0;
    if (ok) span.set_begin(number);
  }
  if (ok && !ends[1].empty()) {
    ok = absl::SimpleAtoi(ends[1], &number) && number >= 0;
    if (ok) span.set_end(number);
  }
  if (ok) return span;
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text,
      "' is not a span; write BEGIN:END, BEGIN: or :END (positions "
      "from 0, END not included)"));
}

absl::StatusOr<int> ParseEnum(const google::protobuf::EnumDescriptor* type,
                              const std::string& text) {
  const auto* value = type->FindValueByName(absl::AsciiStrToUpper(text));
  if (value != nullptr && value->number() != 0) return value->number();
  const std::string meant = NearestName(text, NamesOf(type));
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text, "' is not one of ", EnumNames(type),
      meant.empty() ? "" : absl::StrCat("; did you mean ", meant, "?")));
}

std::string EnumNames(const google::protobuf::EnumDescriptor* type) {
  return absl::StrJoin(NamesOf(type), ", ");
}

}  // namespace qk::client
