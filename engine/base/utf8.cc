#include "engine/base/utf8.h"

#include <algorithm>
#include <iterator>

namespace qk {
namespace {

struct Range {
  char32_t first, last;
};

// Cc, Cf, Zl and Zp of Unicode 15, ignorable characters beside them, and
// noncharacters of the first plane. In order.
constexpr Range kControlOrFormat[] = {
    {0x0000, 0x001F},   {0x007F, 0x009F},   {0x00AD, 0x00AD},
    {0x034F, 0x034F},   {0x0600, 0x0605},   {0x061C, 0x061C},
    {0x06DD, 0x06DD},   {0x070F, 0x070F},   {0x0890, 0x0891},
    {0x08E2, 0x08E2},   {0x115F, 0x1160},   {0x17B4, 0x17B5},
    {0x180B, 0x180F},   {0x200B, 0x200F},   {0x2028, 0x202E},
    {0x2060, 0x206F},   {0x3164, 0x3164},   {0xFDD0, 0xFDEF},
    {0xFEFF, 0xFEFF},   {0xFFA0, 0xFFA0},   {0xFFF0, 0xFFFB},
    {0xFFFE, 0xFFFF},   {0x110BD, 0x110BD}, {0x110CD, 0x110CD},
    {0x13430, 0x1343F}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A},
    {0xE0000, 0xE0FFF},
};

}  // namespace

size_t Utf8CharacterBytes(absl::string_view text) {
  const unsigned char lead = text[0];
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t bytes = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() < bytes) return 0;
  for (size_t i = 1; i < bytes; ++i) {
    if ((text[i] & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = text[1];
  if (lead == 0xE0 && second < 0xA0) return 0;  // overlong
  if (lead == 0xED && second > 0x9F) return 0;  // surrogate
  if (lead == 0xF0 && second < 0x90) return 0;  // overlong
  if (lead == 0xF4 && second > 0x8F) return 0;  // above U+10FFFF
  return bytes;
}

char32_t Utf8Character(absl::string_view text) {
  const size_t bytes = Utf8CharacterBytes(text);
  // A lead byte of two, three or four has 5, 4 or 3 bits of the character.
  char32_t c = static_cast<unsigned char>(text[0]);
  if (bytes > 1) c &= 0xFFu >> (bytes + 1);
  for (size_t i = 1; i < bytes; ++i) {
    c = c << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
  }
  return c;
}

bool IsControlOrFormat(char32_t c) {
  const Range* range = std::lower_bound(
      std::begin(kControlOrFormat), std::end(kControlOrFormat), c,
      [](const Range& r, char32_t value) { return r.last < value; });
  return range != std::end(kControlOrFormat) && c >= range->first;
}

std::optional<int64_t> FindInvalidUtf8(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t bytes = Utf8CharacterBytes(text.substr(i));
    if (bytes == 0) return static_cast<int64_t>(i);
    i += bytes;
  }
  return std::nullopt;
}

}  // namespace qk
