#include "server/common/model_name.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "server/common/bad_field.h"

namespace qk {
namespace {

constexpr size_t kMaxModelName = 128;

}  // namespace

absl::Status CheckModelName(absl::string_view field, absl::string_view name) {
  if (absl::StripAsciiWhitespace(name).empty()) {
    return BadField(field, "must not be empty");
  }
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  };
  if (name.size() > kMaxModelName || name == "." || name == ".." ||
      !std::all_of(name.begin(), name.end(), allowed)) {
    return BadField(field, "invalid name (allowed [A-Za-z0-9._-]{1,128})");
  }
  return absl::OkStatus();
}

}  // namespace qk
