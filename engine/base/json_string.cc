#include "engine/base/json_string.h"

#include "absl/strings/str_format.h"
#include "engine/base/utf8.h"

namespace qk {

std::string JsonString(absl::string_view text,
                       ReplacementCharacter replacement) {
  std::string json = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = Utf8CharacterBytes(text.substr(at));
    const char c = text[at];
    if (bytes == 0) {
      json += replacement == ReplacementCharacter::kEscape ? "\\ufffd"
                                                           : "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      json += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(&json, "\\u%04x", c);
    } else {
      json.append(text.data() + at, bytes);
    }
    at += bytes == 0 ? 1 : bytes;
  }
  return json + "\"";
}

}  // namespace qk
