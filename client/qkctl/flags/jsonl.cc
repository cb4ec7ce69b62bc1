#include "client/qkctl/flags/jsonl.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "client/files/file_io.h"
#include "client/qkctl/flags/text_parse.h"
#include "google/protobuf/util/json_util.h"

namespace qk::client {

using google::protobuf::Struct;
using google::protobuf::Value;

namespace {

constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Returns the end of the JSON string that begins at text[i].
size_t EndOfString(absl::string_view text, size_t i) {
  for (++i; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] == '\\') ++i;
  }
  return std::min(i + 1, text.size());
}

// Returns the text of the number that the member `key` of a JSON object has;
// the last one if several members have that key, and "" without any. A Struct
// has doubles, which do not hold every integer. `object` must be valid.
absl::string_view NumberText(absl::string_view object, absl::string_view key) {
  absl::string_view number;
  int depth = 0;
  bool matched = false;  // the value that comes next is the member's
  for (size_t i = 0; i < object.size();) {
    const char c = object[i];
    if (c == '"') {
      const size_t end = EndOfString(object, i);
      matched = depth == 1 && object.substr(i + 1, end - i - 2) == key;
      i = end;
      continue;
    }
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    const size_t end = object.find_first_of(", \t\r\n}]", i);
    if (matched && (c == '-' || absl::ascii_isdigit(c))) {
      number = object.substr(i, end - i);
    }
    if (!absl::ascii_isspace(c) && c != ':') matched = false;
    ++i;
  }
  return number;
}

bool IsInteger(absl::string_view number) {
  absl::ConsumePrefix(&number, "-");
  return !number.empty() &&
         number.find_first_not_of("0123456789") == absl::string_view::npos;
}

}  // namespace

absl::Status ReadJsonLines(
    const std::string& path,
    const std::function<absl::Status(const JsonLine&)>& take) {
  absl::StatusOr<std::string> content = ReadFile(path);
  if (!content.ok()) return content.status();
  absl::string_view all = *content;
  absl::ConsumePrefix(&all, kByteOrderMark);
  JsonLine line;
  for (std::string& text : SplitText(std::string(all), "\n")) {
    ++line.number;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    line.text = std::move(text);
    line.fields.Clear();
    absl::Status status;
    if (google::protobuf::util::JsonStringToMessage(line.text, &line.fields)
            .ok()) {
      status = take(line);
    } else {
      status = absl::InvalidArgumentError("not a JSON object");
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--jsonl ", path, ":", line.number, ": ",
                       std::string(status.message())));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<JsonId> IdOf(const JsonLine& line) {
  const auto id = line.fields.fields().find("id");
  if (id == line.fields.fields().end()) {
    return JsonId{absl::StrCat(line.number)};
  }
  if (!id->second.string_value().empty()) {
    return JsonId{id->second.string_value()};
  }
  const absl::string_view number = NumberText(line.text, "id");
  if (id->second.kind_case() == Value::kNumberValue && IsInteger(number)) {
    return JsonId{std::string(number), /*is_number=*/true};
  }
  return absl::InvalidArgumentError(
      "\"id\" must be a string that is not empty, or an integer");
}

absl::Status InputOf(const Struct& line, const std::string& name,
                     qkscope::v1::Input* input) {
  const auto text = line.fields().find(name);
  const auto ids = line.fields().find(name + "_ids");
  if (text != line.fields().end() &&
      text->second.kind_case() == Value::kStringValue) {
    input->set_text(text->second.string_value());
    return absl::OkStatus();
  }
  if (ids == line.fields().end() || !ids->second.has_list_value()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must have \"", name, "\": TEXT or \"", name, "_ids\": [IDS]"));
  }
  for (const Value& id : ids->second.list_value().values()) {
    const double number = id.number_value();
    if (id.kind_case() != Value::kNumberValue || number != std::floor(number) ||
        number < 0 || number > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", name, "_ids\" must be a list of token ids"));
    }
    input->mutable_token_ids()->add_ids(static_cast<int32_t>(number));
  }
  return absl::OkStatus();
}

}  // namespace qk::client
