#include "client/qkctl/flags/jsonl.h"

#include <cmath>
#include <limits>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/files/file_io.h"
#include "client/qkctl/flags/text_parse.h"
#include "google/protobuf/util/json_util.h"

namespace qk::client {

using google::protobuf::Struct;
using google::protobuf::Value;

absl::Status ReadJsonLines(
    const std::string& path,
    const std::function<absl::Status(int, const Struct&)>& take) {
  absl::StatusOr<std::string> content = ReadFile(path);
  if (!content.ok()) return content.status();
  int number = 0;
  for (const std::string& text : SplitText(*content, "\n")) {
    ++number;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    Struct line;
    absl::Status status;
    if (google::protobuf::util::JsonStringToMessage(text, &line).ok()) {
      status = take(number, line);
    } else {
      status = absl::InvalidArgumentError("not a JSON object");
    }
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--jsonl ", path, ":", number, ": ", std::string(status.message())));
    }
  }
  return absl::OkStatus();
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
