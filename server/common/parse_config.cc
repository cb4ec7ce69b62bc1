#include "server/common/parse_config.h"

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "engine/base/check.h"
#include "engine/base/nearest_name.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "server/common/text.h"

namespace qk {
namespace {

using ::google::protobuf::Descriptor;
using ::qkscope::v1::ServerConfig;

void CollectFields(const Descriptor* message, std::vector<std::string>* out) {
  for (int i = 0; i < message->field_count(); ++i) {
    out->push_back(message->field(i)->name());
    if (message->field(i)->message_type() != nullptr) {
      CollectFields(message->field(i)->message_type(), out);
    }
  }
}

// The key at the beginning of a line of text proto.
std::string KeyOfLine(absl::string_view line) {
  line = absl::StripLeadingAsciiWhitespace(line);
  size_t end = 0;
  while (end < line.size() &&
         (absl::ascii_isalnum(line[end]) || line[end] == '_')) {
    ++end;
  }
  return std::string(line.substr(0, end));
}

// Keeps the first error, reworded.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  FirstError(const std::string& text, const std::string& file,
             const Descriptor* message)
      : lines_(absl::StrSplit(text, '\n')), file_(file), message_(message) {}

  void AddError(int line, int, const std::string& message) override {
    if (!error_.empty()) return;
    const bool has_line = line >= 0 && line < static_cast<int>(lines_.size());
    const std::string where =
        has_line ? absl::StrCat(file_, ":", line + 1) : file_;
    error_ = absl::StrCat(where, ": ", Explain(message, has_line ? line : -1));
  }

  const std::string& error() const { return error_; }

 private:
  std::string Explain(const std::string& message, int line) const {
    constexpr char kNoField[] = "has no field named \"";
    const size_t at = message.find(kNoField);
    if (at != std::string::npos) {
      const size_t begin = at + sizeof(kNoField) - 1;
      const std::string key =
          message.substr(begin, message.find('"', begin) - begin);
      std::vector<std::string> fields;
      CollectFields(message_, &fields);
      const std::string nearest = NearestName(key, fields);
      return absl::StrCat(
          "unknown key '", Echo(key), "'",
          nearest.empty() ? ""
                          : absl::StrCat("; did you mean '", nearest, "'?"));
    }
    const std::string key = line < 0 ? "" : KeyOfLine(lines_[line]);
    const std::string problem =
        Printable(absl::AsciiStrToLower(message.substr(0, 1)) +
                  message.substr(std::min<size_t>(1, message.size())));
    return key.empty() ? problem : absl::StrCat(Echo(key), ": ", problem);
  }

  const std::vector<std::string> lines_;
  const std::string file_;
  const Descriptor* const message_;
  std::string error_;
};

}  // namespace

absl::Status ParseTextProto(
    const std::string& text, const std::string& file,
    google::protobuf::Message* out,
    google::protobuf::TextFormat::ParseInfoTree* places) {
  FirstError errors(text, file, out->GetDescriptor());
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.WriteLocationsTo(places);
  if (parser.ParseFromString(text, out)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      errors.error().empty() ? absl::StrCat(file, ": cannot be parsed")
                             : errors.error());
}

absl::StatusOr<ServerConfig> ParseConfig(const std::string& text,
                                         const std::string& file) {
  ServerConfig config;
  QK_RETURN_IF_ERROR(ParseTextProto(text, file, &config, nullptr));
  return config;
}

}  // namespace qk
