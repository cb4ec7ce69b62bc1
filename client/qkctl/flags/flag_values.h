// Helpers for the files that turn flags into messages.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_FLAG_VALUES_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_FLAG_VALUES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/qkctl/flags/text_parse.h"
#include "google/protobuf/repeated_field.h"

namespace qk::client {

template <typename... Parts>
absl::Status Usage(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// Puts the flag's name in front of the message.
inline absl::Status FlagError(const char* flag, const absl::Status& status) {
  return Usage(flag, ": ", std::string(status.message()));
}

inline absl::Status SetList(const char* flag,
                            const std::optional<std::string>& text,
                            google::protobuf::RepeatedField<int32_t>* field) {
  if (!text.has_value()) return absl::OkStatus();
  absl::StatusOr<std::vector<int32_t>> numbers = ParseIntList(*text);
  if (!numbers.ok()) return FlagError(flag, numbers.status());
  field->Assign(numbers->begin(), numbers->end());
  return absl::OkStatus();
}

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_FLAG_VALUES_H_
