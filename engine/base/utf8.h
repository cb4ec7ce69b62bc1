// UTF-8 as Unicode 15 defines it (table 3-7): no overlong forms, no surrogates.
#ifndef QKSCOPE_ENGINE_BASE_UTF8_H_
#define QKSCOPE_ENGINE_BASE_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace qk {

// Bytes of the character at the start of `text` (not empty), 0 if it is none.
size_t Utf8CharacterBytes(absl::string_view text);

// The character at the start of `text`, of which Utf8CharacterBytes are not 0.
char32_t Utf8Character(absl::string_view text);

// Whether a terminal or a viewer may act on the character instead of showing
// it: control characters (C0, DEL, C1), format characters (Unicode's Cf, such
// as those that turn the direction of text), separators of lines and
// paragraphs, and what is never shown.
bool IsControlOrFormat(char32_t c);

// Offset of the first byte that is not UTF-8; nullopt if all bytes are.
std::optional<int64_t> FindInvalidUtf8(absl::string_view text);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_UTF8_H_
