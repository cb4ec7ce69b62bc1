#include "engine/formats/json_syntax.h"

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace qk {
namespace {

// Keeps the open brackets in a vector, so that depth costs no stack.
class Scanner {
 public:
  Scanner(absl::string_view text, JsonNumbers numbers)
      : text_(text), numbers_(numbers) {}

  std::optional<int64_t> Run() {
    if (Document()) return std::nullopt;
    return static_cast<int64_t>(pos_);
  }

  // Where the numbers begin and end.
  const std::vector<std::pair<size_t, size_t>>& places() const {
    return places_;
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

  // Reads a whole scalar or an empty container, or else the opening of a
  // container and the key of its first member.
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
    if (Literal("true") || Literal("false") || Literal("null")) return true;
    const size_t begin = pos_;
    if (!Number()) return false;
    places_.emplace_back(begin, pos_);
    return true;
  }

  // After a value: reads closing brackets, then a comma if a container is still
  // open.
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
    if (numbers_ == JsonNumbers::kPython &&
        (Literal("NaN") || Literal("Infinity") || Literal("-Infinity"))) {
      return true;
    }
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
  JsonNumbers numbers_;
  size_t pos_ = 0;
  std::vector<std::pair<size_t, size_t>> places_;
  std::vector<char> open_;  // the closing brackets of the open containers
};

bool FitsSimdjson(absl::string_view number) {
  int64_t integer;
  uint64_t unsigned_integer;
  double real;
  if (number.find_first_of(".eE") == absl::string_view::npos) {
    return absl::SimpleAtoi(number, &integer) ||
           absl::SimpleAtoi(number, &unsigned_integer);
  }
  return absl::SimpleAtod(number, &real) && std::isfinite(real);
}

}  // namespace

std::optional<int64_t> FindJsonSyntaxError(absl::string_view text,
                                           JsonNumbers numbers) {
  return Scanner(text, numbers).Run();
}

std::string QuotePythonNumbers(absl::string_view text, absl::string_view mark,
                               int64_t* count) {
  Scanner scanner(text, JsonNumbers::kPython);
  scanner.Run();
  std::string out;
  size_t copied = 0;
  *count = 0;
  for (const auto& [begin, end] : scanner.places()) {
    const absl::string_view number = text.substr(begin, end - begin);
    if (FitsSimdjson(number)) continue;
    absl::StrAppend(&out, text.substr(copied, begin - copied), "\"", mark,
                    number, "\"");
    copied = end;
    ++*count;
  }
  absl::StrAppend(&out, text.substr(copied));
  return out;
}

}  // namespace qk
