// Parses text proto, with errors that help an operator.
#ifndef QKSCOPE_SERVER_COMMON_PARSE_CONFIG_H_
#define QKSCOPE_SERVER_COMMON_PARSE_CONFIG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/text_format.h"
#include "qkscope/v1/config.pb.h"

namespace qk {

// Errors: `file:line: key: problem`, with a suggestion for an unknown key.
// `places` receives the fields' lines; it may be nullptr.
absl::Status ParseTextProto(
    const std::string& text, const std::string& file,
    google::protobuf::Message* out,
    google::protobuf::TextFormat::ParseInfoTree* places);

// Parses the text of a configuration file.
absl::StatusOr<::qkscope::v1::ServerConfig> ParseConfig(
    const std::string& text, const std::string& file);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_PARSE_CONFIG_H_
