// Parsers for the command line: numbers, lists of numbers, spans, names of the
// API's enums. Errors say what is allowed.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_TEXT_PARSE_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_TEXT_PARSE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "qkscope/v1/spec.pb.h"

namespace qk::client {

// Splits `text` at each character of `separators`; keeps empty parts.
std::vector<std::string> SplitText(const std::string& text,
                                   const char* separators);

absl::StatusOr<int32_t> ParseInt(const std::string& text);
absl::StatusOr<uint64_t> ParseUnsigned(const std::string& text);
absl::StatusOr<double> ParseNumber(const std::string& text);
absl::StatusOr<bool> ParseBool(const std::string& text);

// "0-3,7" or "0-3+7": {0, 1, 2, 3, 7}. At most 65,536 numbers.
absl::StatusOr<std::vector<int32_t>> ParseIntList(const std::string& text);

// "1:", ":20" or "1:20": positions [begin, end).
absl::StatusOr<qkscope::v1::Span> ParseSpan(const std::string& text);

// Returns the value of `type` with that name, in any case. The unspecified
// value has no name.
absl::StatusOr<int> ParseEnum(const google::protobuf::EnumDescriptor* type,
                              const std::string& text);

// The names that ParseEnum accepts: "before, after, before_and_after".
std::string EnumNames(const google::protobuf::EnumDescriptor* type);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_TEXT_PARSE_H_
