#include "engine/tokenizer/normal_forms.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

// Characters below this one never compose with what comes before them, so the
// text can be cut before each.
constexpr char32_t kFirstCombining = 0x300;

// Returns the first character that the form may change.
char32_t FirstChanged(NormalForm form) {
  switch (form) {
    case NormalForm::kNfc:
      return kFirstCombining;
    case NormalForm::kNfd:
      return 0xc0;
    default:
      return 0xa0;
  }
}

bool Composes(NormalForm form) {
  return form == NormalForm::kNfc || form == NormalForm::kNfkc;
}

// A character of the decomposed text, with the bytes from which it came.
struct Unit {
  char32_t code;
  uint8_t combining_class;
  size_t begin;
  size_t end;
};

// `tokenizers` normalises by Unicode 9: marks that came later count as
// starters, and characters that came later (up to utf8proc's Unicode 15) have
// no decomposition. These are all that would have one.
constexpr std::pair<char32_t, char32_t> kLater[] = {
    {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},   {0xab69, 0xab69},
    {0x10781, 0x107ba}, {0x11938, 0x11938}, {0x1e030, 0x1e06d},
    {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}};

bool IsLater(char32_t c) {
  return std::any_of(std::begin(kLater), std::end(kLater), [c](auto range) {
    return range.first <= c && c <= range.second;
  });
}

uint8_t CombiningClass(char32_t c) {
  if ((CharClasses(c) & kMark) == 0) return 0;
  return static_cast<uint8_t>(
      utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class);
}

void Decompose(NormalForm form, char32_t c, size_t begin, size_t end,
               std::vector<Unit>* out) {
  if (IsLater(c)) {
    out->push_back({c, 0, begin, end});
    return;
  }
  int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) {
    options |= UTF8PROC_COMPAT;
  }
  std::array<utf8proc_int32_t, 32> parts;
  int last_bound_class = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(c), parts.data(), parts.size(),
      static_cast<utf8proc_option_t>(options), &last_bound_class);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    const auto part = static_cast<char32_t>(parts[i]);
    out->push_back({part, CombiningClass(part), begin, end});
  }
}

// Sorts each run of marks by class. utf8proc's own method is quadratic in the
// length of the run.
void Reorder(std::vector<Unit>* units) {
  const auto is_mark = [](const Unit& u) { return u.combining_class != 0; };
  for (auto at = units->begin(); at != units->end();) {
    const auto begin = std::find_if(at, units->end(), is_mark);
    at = std::find_if_not(begin, units->end(), is_mark);
    std::stable_sort(begin, at, [](const Unit& a, const Unit& b) {
      return a.combining_class < b.combining_class;
    });
  }
}

// Returns the primary composite of two characters, 0 if there is none.
char32_t Composite(char32_t first, char32_t second) {
  std::array<utf8proc_int32_t, 2> pair = {
      static_cast<utf8proc_int32_t>(first),
      static_cast<utf8proc_int32_t>(second)};
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(
      pair.data(), 2,
      static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  const auto composite = static_cast<char32_t>(pair[0]);
  return count == 1 && !IsLater(composite) ? composite : 0;
}

// UAX #15, D117: a character composes with the last starter unless a character
// between them has class 0 or a class at least as high as its own.
void Compose(std::vector<Unit>* units) {
  size_t kept = 0;
  size_t starter = SIZE_MAX;
  for (const Unit unit : *units) {
    if (starter != SIZE_MAX) {
      const bool adjacent = kept == starter + 1;
      const bool blocked = !adjacent && (*units)[kept - 1].combining_class >=
                                            unit.combining_class;
      Unit& base = (*units)[starter];
      const char32_t composite = blocked ? 0 : Composite(base.code, unit.code);
      if (composite != 0) {
        base.code = composite;
        base.begin = std::min(base.begin, unit.begin);
        base.end = std::max(base.end, unit.end);
        continue;
      }
    }
    if (unit.combining_class == 0) starter = kept;
    (*units)[kept++] = unit;
  }
  units->resize(kept);
}

// Writes the normalised text from chunks.
class FormWriter {
 public:
  FormWriter(NormalForm form, absl::string_view text, TextEdit* edit)
      : form_(form), text_(text), edit_(edit) {}

  // The chunk [begin, end), which can be normalised by itself.
  void Write(size_t begin, size_t end) {
    units_.clear();
    for (size_t at = begin; at < end;) {
      const Utf8Char c = Utf8At(text_, at);
      Decompose(form_, c.code, at, at + c.size, &units_);
      at += c.size;
    }
    Reorder(&units_);
    if (Composes(form_)) Compose(&units_);
    chunk_.clear();
    for (const Unit& unit : units_) AppendUtf8(unit.code, &chunk_);
    if (chunk_ == text_.substr(begin, end - begin)) return;
    edit_->CopyTo(begin);
    for (const Unit& unit : units_) {
      chunk_.clear();
      AppendUtf8(unit.code, &chunk_);
      edit_->Make(chunk_, unit.begin, unit.end);
    }
    edit_->SkipTo(end);
  }

 private:
  NormalForm form_;
  absl::string_view text_;
  TextEdit* edit_;
  std::vector<Unit> units_;
  std::string chunk_;
};

}  // namespace

void ApplyNormalForm(NormalForm form, absl::string_view text, TextEdit* edit) {
  FormWriter writer(form, text, edit);
  const char32_t first_changed = FirstChanged(form);
  size_t chunk = 0;
  bool may_change = false;  // whether the chunk holds such a character
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = Utf8At(text, at);
    if (c.code < kFirstCombining) {
      if (may_change) writer.Write(chunk, at);
      chunk = at;
      may_change = false;
    }
    may_change |= c.code >= first_changed;
    at += c.size;
  }
  if (may_change) writer.Write(chunk, text.size());
}

}  // namespace qk
