#include "engine/base/json_string.h"

#include <cstdint>

#include "absl/strings/str_format.h"
#include "engine/base/utf8.h"

namespace qk {
namespace {

// JSON writes what is beyond the first plane as two surrogates.
void AppendEscaped(char32_t c, std::string* json) {
  if (c < 0x10000) {
    absl::StrAppendFormat(json, "\\u%04x", static_cast<uint32_t>(c));
    return;
  }
  const uint32_t offset = static_cast<uint32_t>(c) - 0x10000;
  absl::StrAppendFormat(json, "\\u%04x\\u%04x", 0xD800 + (offset >> 10),
                        0xDC00 + (offset & 0x3FF));
}

}  // namespace

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
    } else if (const char32_t whole = Utf8Character(text.substr(at));
               IsControlOrFormat(whole)) {
      AppendEscaped(whole, &json);
    } else {
      json.append(text.data() + at, bytes);
    }
    at += bytes == 0 ? 1 : bytes;
  }
  return json + "\"";
}

}  // namespace qk
