// Writes JSON strings, for all code that writes JSON.
#ifndef QKSCOPE_ENGINE_BASE_JSON_STRING_H_
#define QKSCOPE_ENGINE_BASE_JSON_STRING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace qk {

// How to write U+FFFD, which replaces every byte that is not valid UTF-8.
enum class ReplacementCharacter { kEscape, kUtf8 };

// Returns `text` as a JSON string, including the quotes. Escapes quotes,
// backslashes, control and format characters (IsControlOrFormat), and leaves
// other characters unchanged.
std::string JsonString(
    absl::string_view text,
    ReplacementCharacter replacement = ReplacementCharacter::kEscape);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_JSON_STRING_H_
