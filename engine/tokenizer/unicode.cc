#include "engine/tokenizer/unicode.h"

#include <algorithm>

namespace qk {
namespace {

uint8_t FindClasses(char32_t c) {
  const auto above = std::upper_bound(
      kUnicodeRanges.begin(), kUnicodeRanges.end(), uint32_t{c} << 8 | 0xff);
  return static_cast<uint8_t>(*(above - 1));
}

// Most text is Latin: this table saves it the search.
constexpr size_t kTableSize = 0x250;

std::array<uint8_t, kTableSize> MakeTable() {
  std::array<uint8_t, kTableSize> table;
  for (size_t c = 0; c < kTableSize; ++c) {
    table[c] = FindClasses(static_cast<char32_t>(c));
  }
  return table;
}

}  // namespace

uint8_t CharClasses(char32_t c) {
  static const std::array<uint8_t, kTableSize> table = MakeTable();
  return c < kTableSize ? table[c] : FindClasses(c);
}

Utf8Char Utf8Before(absl::string_view text, size_t end) {
  size_t at = end - 1;
  while ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return Utf8At(text, at);
}

void AppendUtf8(char32_t c, std::string* out) {
  const auto put = [out](char32_t byte) {
    out->push_back(static_cast<char>(byte));
  };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6);
    put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3f));
    put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3f));
    put(0x80 | (c >> 6 & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

}  // namespace qk
