#include "client/qkctl/flags/jsonl.h"

#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "client/files/file_io.h"
#include "client/qkctl/flags/text_parse.h"
#include "google/protobuf/util/json_util.h"
#include "simdjson.h"

namespace qk::client {

using google::protobuf::Struct;
using google::protobuf::Value;

namespace {

constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Returns the text of the number that the member `key` of a JSON object has;
// the last one if several members have that key, and "" without any. A Struct
// has doubles, which do not hold every integer.
std::string NumberText(const std::string& object, absl::string_view key) {
  const simdjson::padded_string json(object);
  simdjson::ondemand::parser parser;
  simdjson::ondemand::document document;
  simdjson::ondemand::object members;
  std::string number;
  if (parser.iterate(json).get(document) != simdjson::SUCCESS ||
      document.get_object().get(members) != simdjson::SUCCESS) {
    return number;
  }
  for (simdjson::simdjson_result<simdjson::ondemand::field> member : members) {
    simdjson::ondemand::field field;
    std::string_view name;
    if (std::move(member).get(field) != simdjson::SUCCESS ||
        field.unescaped_key().get(name) != simdjson::SUCCESS) {
      return "";
    }
    if (name != std::string_view(key.data(), key.size())) continue;
    const std::string_view token = field.value().raw_json_token();
    number = std::string(absl::StripAsciiWhitespace(
        absl::string_view(token.data(), token.size())));
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
  if (id->second.kind_case() == Value::kNumberValue) {
    std::string number = NumberText(line.text, "id");
    if (IsInteger(number)) return JsonId{std::move(number), true};
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
