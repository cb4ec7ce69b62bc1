#include "engine/tokenizer/char_changes.h"

#include <utf8proc.h>

#include <cstddef>
#include <string>

#include "absl/functional/function_ref.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

// Calls `change` for every character; it returns whether the character becomes
// what it wrote (nothing: the character goes).
void ChangeChars(
    absl::string_view text, TextEdit* edit,
    absl::FunctionRef<bool(char32_t c, std::string* made)> change) {
  std::string made;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = Utf8At(text, at);
    const size_t end = at + c.size;
    made.clear();
    if (change(c.code, &made)) {
      edit->CopyTo(at);
      edit->Make(made, at, end);
      edit->SkipTo(end);
    }
    at = end;
  }
}

bool NmtDrops(char32_t c) {
  return (c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) ||
         c == 0x7f || c == 0x8f || c == 0x9f;
}

bool NmtTakesForSpace(char32_t c) {
  switch (c) {
    case 0x09:
    case 0x0a:
    case 0x0c:
    case 0x0d:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x2581:
    case 0xfeff:
    case 0xfffd:
      return true;
    default:
      return c >= 0x200b && c <= 0x200f;
  }
}

// Ranges of letters that got a lower case after utf8proc's Unicode 15, each
// letter or each second one, and the first one's.
struct LaterCase {
  char32_t first;
  char32_t last;
  char32_t step;
  char32_t lower;
};
constexpr LaterCase kLaterCases[] = {
    {0x1c89, 0x1c89, 1, 0x1c8a},    {0xa7cb, 0xa7cb, 1, 0x0264},
    {0xa7cc, 0xa7ce, 2, 0xa7cd},    {0xa7d2, 0xa7d4, 2, 0xa7d3},
    {0xa7da, 0xa7da, 1, 0xa7db},    {0xa7dc, 0xa7dc, 1, 0x019b},
    {0x10d50, 0x10d65, 1, 0x10d70}, {0x16ea0, 0x16eb8, 1, 0x16ebb}};

char32_t Lower(char32_t c) {
  for (const LaterCase& later : kLaterCases) {
    if (later.first <= c && c <= later.last &&
        (c - later.first) % later.step == 0) {
      return later.lower + (c - later.first);
    }
  }
  return static_cast<char32_t>(
      utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

}  // namespace

void ApplyNmt(absl::string_view text, TextEdit* edit) {
  ChangeChars(text, edit, [](char32_t c, std::string* made) {
    if (NmtDrops(c)) return true;
    if (!NmtTakesForSpace(c)) return false;
    made->push_back(' ');
    return true;
  });
}

void ApplyLowercase(absl::string_view text, TextEdit* edit) {
  constexpr char32_t kDottedI = 0x130;  // the only one that becomes two
  ChangeChars(text, edit, [](char32_t c, std::string* made) {
    if (c == kDottedI) {
      *made = "i\u0307";
      return true;
    }
    const char32_t lower = Lower(c);
    if (lower != c) AppendUtf8(lower, made);
    return lower != c;
  });
}

void ApplyStripAccents(absl::string_view text, TextEdit* edit) {
  ChangeChars(text, edit, [](char32_t c, std::string*) {
    return (CharClasses(c) & kAccent) != 0;
  });
}

void ApplyStrip(Side side, bool only_spaces, absl::string_view text,
                TextEdit* edit) {
  const auto goes = [&](const Utf8Char& c) {
    return only_spaces ? c.code == ' ' : (CharClasses(c.code) & kSpace) != 0;
  };
  size_t begin = 0;
  size_t end = text.size();
  while (side != Side::kRight && begin < end) {
    const Utf8Char c = Utf8At(text, begin);
    if (!goes(c)) break;
    begin += c.size;
  }
  while (side != Side::kLeft && end > begin) {
    const Utf8Char c = Utf8Before(text, end);
    if (!goes(c)) break;
    end -= c.size;
  }
  if (begin > 0) edit->SkipTo(begin);
  if (end < text.size()) {
    edit->CopyTo(end);
    edit->SkipTo(text.size());
  }
}

}  // namespace qk
