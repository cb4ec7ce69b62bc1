// JSON strings, for everything that writes JSON.
#ifndef QKSCOPE_ENGINE_BASE_JSON_STRING_H_
#define QKSCOPE_ENGINE_BASE_JSON_STRING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace qk {

// How U+FFFD, which stands for every byte that is not UTF-8, is written.
enum class ReplacementCharacter { kEscape, kUtf8 };

// `text` as a JSON string, quotes included. Control characters are escaped,
// other characters stay as they are.
std::string JsonString(
    absl::string_view text,
    ReplacementCharacter replacement = ReplacementCharacter::kEscape);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_JSON_STRING_H_
