#include "engine/formats/json_syntax.h"

#include <cstddef>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace qk {
namespace {

// Keeps open brackets in a vector, so that depth costs no stack.
class Scanner {
 public:
  explicit Scanner(absl::string_view text) : text_(text) {}

  std::optional<int64_t> Run() {
    if (Document()) return std::nullopt;
    return static_cast<int64_t>(pos_);
  }

 private:
  bool AtEnd() const { return pos_ == text_.size(); }
  bool At(char c) const { return !AtEnd() && text_[pos_] == c; }
  bool Eat(char c) {
    if (!At(c)) return false;
    ++pos_;
    return true;
  }
  void Space() {
    while (At(' ') || At('\n') || At('\r') || At('\t')) ++pos_;
  }

  bool Document() {
    do {
      if (!BeginValue()) return false;
      if (!CloseAndSeparate()) return false;
    } while (!open_.empty());
    return AtEnd();
  }

  // A scalar or an empty container whole, or the opening of a container and
  // the key of its first member.
  bool BeginValue() {
    Space();
    while (At('{') || At('[')) {
      const char close = text_[pos_++] == '{' ? '}' : ']';
      Space();
      if (Eat(close)) return true;
      open_.push_back(close);
      if (close == '}' && !Key()) return false;
      Space();
    }
    if (At('"')) return String();
    return Literal("true") || Literal("false") || Literal("null") || Number();
  }

  // After a value: closing brackets, then a comma where something is open.
  bool CloseAndSeparate() {
    Space();
    while (!open_.empty() && Eat(open_.back())) {
      open_.pop_back();
      Space();
    }
    if (open_.empty()) return true;
    if (!Eat(',')) return false;
    return open_.back() != '}' || Key();
  }

  bool Key() {
    Space();
    if (!String()) return false;
    Space();
    return Eat(':');
  }

  bool Literal(absl::string_view word) {
    if (!absl::StartsWith(text_.substr(pos_), word)) return false;
    pos_ += word.size();
    return true;
  }

  bool Digits() {
    const size_t start = pos_;
    while (!AtEnd() && absl::ascii_isdigit(text_[pos_])) ++pos_;
    return pos_ > start;
  }

  bool Number() {
    Eat('-');
    if (!Eat('0') && !Digits()) return false;
    if (Eat('.') && !Digits()) return false;
    if (Eat('e') || Eat('E')) {
      if (!Eat('+')) Eat('-');
      return Digits();
    }
    return true;
  }

  bool String() {
    if (!Eat('"')) return false;
    while (!AtEnd()) {
      const unsigned char c = text_[pos_];
      if (c == '"') {
        ++pos_;
        return true;
      }
      if (c < 0x20) return false;
      ++pos_;
      if (c == '\\' && !Escape()) return false;
    }
    return false;
  }

  bool Escape() {
    if (Eat('u')) {
      for (int i = 0; i < 4; ++i, ++pos_) {
        if (AtEnd() || !absl::ascii_isxdigit(text_[pos_])) return false;
      }
      return true;
    }
    if (AtEnd() || !absl::StrContains("\"\\/bfnrt", text_[pos_])) return false;
    ++pos_;
    return true;
  }

  absl::string_view text_;
  size_t pos_ = 0;
  std::vector<char> open_;  // the brackets that will close what is open
};

// Bytes of the UTF-8 character at the start of `s`, 0 if it is none.
// Unicode 15, table 3-7.
size_t CharacterBytes(absl::string_view s) {
  const unsigned char lead = s[0];
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t bytes = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (s.size() < bytes) return 0;
  for (size_t i = 1; i < bytes; ++i) {
    if ((s[i] & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = s[1];
  if (lead == 0xE0 && second < 0xA0) return 0;  // overlong
  if (lead == 0xED && second > 0x9F) return 0;  // surrogate
  if (lead == 0xF0 && second < 0x90) return 0;  // overlong
  if (lead == 0xF4 && second > 0x8F) return 0;  // above U+10FFFF
  return bytes;
}

}  // namespace

std::optional<int64_t> FindJsonSyntaxError(absl::string_view text) {
  return Scanner(text).Run();
}

std::optional<int64_t> FindInvalidUtf8(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t bytes = CharacterBytes(text.substr(i));
    if (bytes == 0) return static_cast<int64_t>(i);
    i += bytes;
  }
  return std::nullopt;
}

}  // namespace qk
