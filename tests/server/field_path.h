// The paths by which errors name fields: "arms[2].disruptions[0].heads[1]".
#ifndef QKSCOPE_TESTS_SERVER_FIELD_PATH_H_
#define QKSCOPE_TESTS_SERVER_FIELD_PATH_H_

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"

namespace qk::testing {

// Whether the path leads to a field of the message, or an entry of one.
inline bool IsFieldPath(const google::protobuf::Descriptor& message,
                        absl::string_view path) {
  const google::protobuf::Descriptor* in = &message;
  for (absl::string_view part : absl::StrSplit(path, '.')) {
    if (in == nullptr) return false;
    const size_t bracket = std::min(part.find('['), part.size());
    const auto* field =
        in->FindFieldByName(std::string(part.substr(0, bracket)));
    if (field == nullptr) return false;
    in = field->message_type();  // nullptr: it has no fields
    const absl::string_view index = part.substr(bracket);
    if (index.empty()) {
      if (field->is_repeated()) in = nullptr;  // an entry must be named
      continue;
    }
    const absl::string_view digits = index.substr(1, index.size() - 2);
    if (!field->is_repeated() || index.size() < 3 || index.back() != ']' ||
        !std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit)) {
      return false;
    }
  }
  return true;
}

}  // namespace qk::testing

#endif  // QKSCOPE_TESTS_SERVER_FIELD_PATH_H_
