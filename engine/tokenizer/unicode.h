// UTF-8, and the character classes that pre-tokenizers ask for. The classes are
// those of the `tokenizers` package, not those of one Unicode version.
#ifndef QKSCOPE_ENGINE_TOKENIZER_UNICODE_H_
#define QKSCOPE_ENGINE_TOKENIZER_UNICODE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace qk {

// Bits of CharClasses().
inline constexpr uint8_t kLetter = 1;   // \p{L}
inline constexpr uint8_t kNumber = 2;   // \p{N}
inline constexpr uint8_t kSpace = 4;    // \s
inline constexpr uint8_t kNumeric = 8;  // counts as a digit for the step Digits
inline constexpr uint8_t kWordChar = 16;  // \w
inline constexpr uint8_t kMark = 32;      // reordered by NFC
inline constexpr uint8_t kAccent = 64;    // dropped by StripAccents

// Each entry is (first code point << 8 | classes); it holds up to the next
// entry.
inline constexpr size_t kNumUnicodeRanges = 2126;
extern const std::array<uint32_t, kNumUnicodeRanges> kUnicodeRanges;

uint8_t CharClasses(char32_t c);

struct Utf8Char {
  char32_t code;
  size_t size;  // bytes, 1 to 4
};

// Returns the character at `text[at]`. The text must be valid UTF-8, and a
// character must start at `at`.
inline Utf8Char Utf8At(absl::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return static_cast<unsigned char>(text[at + i]);
  };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0) return {(lead & 0x1f) << 6 | (byte(1) & 0x3fu), 2};
  if (lead < 0xf0) {
    return {(lead & 0x0f) << 12 | (byte(1) & 0x3fu) << 6 | (byte(2) & 0x3fu),
            3};
  }
  return {(lead & 0x07) << 18 | (byte(1) & 0x3fu) << 12 |
              (byte(2) & 0x3fu) << 6 | (byte(3) & 0x3fu),
          4};
}

// Returns the character that ends right before `end`; `end` > 0.
Utf8Char Utf8Before(absl::string_view text, size_t end);

void AppendUtf8(char32_t c, std::string* out);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_UNICODE_H_
