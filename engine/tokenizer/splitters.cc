#include "engine/tokenizer/splitters.h"

#include <cstdint>

#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

constexpr uint8_t kAnyOfPattern = kLetter | kNumber | kSpace;

// Returns \p{L}, \p{N}, \s or, for none of them, 0.
uint8_t PatternClass(char32_t c) { return CharClasses(c) & kAnyOfPattern; }

bool IsNewline(char c) { return c == '\r' || c == '\n'; }

// Returns the end of the longest run from `at` on, of at most `max_chars`
// characters, whose classes under `mask` equal `classes`.
size_t RunEnd(absl::string_view text, size_t at, uint8_t mask, uint8_t classes,
              size_t max_chars = SIZE_MAX) {
  for (size_t count = 0; at < text.size() && count < max_chars; ++count) {
    const Utf8Char c = Utf8At(text, at);
    if ((CharClasses(c.code) & mask) != classes) break;
    at += c.size;
  }
  return at;
}

// Matches \s+(?!\S)|\s+ at a whitespace character: the whole run at the end of
// the text; else all but its last character, unless that is the only one.
size_t WhitespaceEnd(absl::string_view text, size_t begin, size_t run_end) {
  if (run_end == text.size()) return run_end;
  const size_t last = run_end - Utf8Before(text, run_end).size;
  return last > begin ? last : run_end;
}

// Returns the size in bytes of the letters after the apostrophe of 's 't 're
// 've 'm 'll 'd; 0 if they do not match. Ignoring case, U+017F (long s) is an
// s.
size_t ContractionSize(absl::string_view rest, bool ignore_case) {
  const auto letter = [&](size_t i) {
    const char c = i < rest.size() ? rest[i] : '\0';
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20)
                                               : c;
  };
  switch (letter(0)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 1;
    case 'r':
    case 'v':
      return letter(1) == 'e' ? 2 : 0;
    case 'l':
      return letter(1) == 'l' ? 2 : 0;
    default:
      return ignore_case && rest.substr(0, 2) == "\u017f" ? 2 : 0;
  }
}

// Matches \s*[\r\n]+|\s+(?!\S)|\s+ at a whitespace character.
size_t NewlinesOrWhitespaceEnd(absl::string_view text, size_t begin) {
  const size_t run_end = RunEnd(text, begin, kAnyOfPattern, kSpace);
  for (size_t at = run_end; at > begin; --at) {
    if (IsNewline(text[at - 1])) return at;
  }
  return WhitespaceEnd(text, begin, run_end);
}

size_t NextLlama3Like(absl::string_view text, size_t begin, size_t max_digits) {
  const Utf8Char first = Utf8At(text, begin);
  if (first.code == '\'') {
    const size_t size = ContractionSize(text.substr(begin + 1), true);
    if (size > 0) return begin + 1 + size;
  }
  const uint8_t first_class = PatternClass(first.code);
  if (first_class == kNumber) {
    return RunEnd(text, begin, kAnyOfPattern, kNumber, max_digits);
  }
  if (!IsNewline(text[begin])) {
    const size_t letters = first_class == kLetter ? begin : begin + first.size;
    const size_t end = RunEnd(text, letters, kAnyOfPattern, kLetter);
    if (end > letters) return end;
  }
  const size_t symbols = begin + (first.code == ' ' ? 1 : 0);
  size_t end = RunEnd(text, symbols, kAnyOfPattern, 0);
  if (end > symbols) {
    while (end < text.size() && IsNewline(text[end])) ++end;
    return end;
  }
  return NewlinesOrWhitespaceEnd(text, begin);
}

}  // namespace

size_t NextDigit(absl::string_view text, size_t begin) {
  const size_t end = RunEnd(text, begin, kNumeric, 0);
  return end > begin ? end : begin + Utf8At(text, begin).size;
}

size_t NextDigitRun(absl::string_view text, size_t begin) {
  const uint8_t numeric = CharClasses(Utf8At(text, begin).code) & kNumeric;
  return RunEnd(text, begin, kNumeric, numeric);
}

size_t NextSpaceRun(absl::string_view text, size_t begin) {
  const uint8_t space = CharClasses(Utf8At(text, begin).code) & kSpace;
  return RunEnd(text, begin, kSpace, space);
}

size_t NextWordRun(absl::string_view text, size_t begin) {
  constexpr uint8_t kMask = kSpace | kWordChar;
  const uint8_t classes = CharClasses(Utf8At(text, begin).code) & kMask;
  return RunEnd(text, begin, kMask, classes);
}

size_t NextGpt2(absl::string_view text, size_t begin) {
  if (text[begin] == '\'') {
    const size_t size = ContractionSize(text.substr(begin + 1), false);
    if (size > 0) return begin + 1 + size;
  }
  const size_t word = begin + (text[begin] == ' ' ? 1 : 0);
  if (word < text.size()) {
    const uint8_t word_class = PatternClass(Utf8At(text, word).code);
    if (word_class != kSpace) {
      return RunEnd(text, word, kAnyOfPattern, word_class);
    }
  }
  return WhitespaceEnd(text, begin, RunEnd(text, begin, kAnyOfPattern, kSpace));
}

size_t NextLlama3(absl::string_view text, size_t begin) {
  return NextLlama3Like(text, begin, 3);
}

size_t NextQwen2(absl::string_view text, size_t begin) {
  return NextLlama3Like(text, begin, 1);
}

size_t NextAfterSpace(absl::string_view text, size_t begin) {
  const size_t space = text.find(' ', begin);
  return space == absl::string_view::npos ? text.size() : space + 1;
}

size_t NextBeforeMetaspace(absl::string_view text, size_t begin) {
  const size_t mark = text.find(kMetaspace, begin + 1);
  return mark == absl::string_view::npos ? text.size() : mark;
}

}  // namespace qk
