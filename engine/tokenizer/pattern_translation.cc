#include "engine/tokenizer/pattern_translation.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

// Oniguruma's classes as members of a set. Its \s is Unicode's White_Space
// (PCRE2's has U+180E too), its \w has marks and all connectors.
constexpr absl::string_view kSpaceSet = R"(\x{09}-\x{0D}\x{85}\p{Z})";
constexpr absl::string_view kWordSet = R"(\p{L}\p{Nl}\p{M}\p{Nd}\p{Pc})";
constexpr absl::string_view kHexSet = "0-9A-Fa-f";

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (pos_ < in_.size()) QK_RETURN_IF_ERROR(Item());
    return std::move(out_);
  }

 private:
  bool At(absl::string_view text) const {
    return absl::StartsWith(in_.substr(pos_), text);
  }
  void Copy(size_t bytes) {
    absl::StrAppend(&out_, in_.substr(pos_, bytes));
    pos_ += bytes;
  }
  absl::Status Unsupported(size_t bytes) const {
    return absl::InvalidArgumentError(
        absl::StrCat("unsupported \"", Excerpt(in_.substr(pos_, bytes)),
                     "\" at byte ", pos_, " of the pattern"));
  }

  absl::Status Item() {
    switch (in_[pos_]) {
      case '\\':
        return Escape();
      case '[':
        return Set();
      case '(':
        return Group();
      case '{':
        return Interval();
      default:
        Copy(1);
        return absl::OkStatus();
    }
  }

  // The start of a group, to behind its "(?:" or the like.
  absl::Status Group() {
    if (!At("(?")) {
      Copy(1);
      return absl::OkStatus();
    }
    for (const absl::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!",
                                          "(?>", "(?i:", "(?-i:", "(?i)"}) {
      if (!At(known)) continue;
      Copy(known.size());
      return absl::OkStatus();
    }
    return Unsupported(3);
  }

  // {n}, {n,}, {n,m}: the same in both, but for what follows. Anything else in
  // braces is text to one of the engines at least.
  absl::Status Interval() {
    size_t end = pos_ + 1;
    const auto digits = [&] {
      const size_t begin = end;
      while (end < in_.size() && absl::ascii_isdigit(in_[end])) ++end;
      return end > begin;
    };
    bool good = digits();
    if (good && end < in_.size() && in_[end] == ',') {
      ++end;
      digits();
    }
    good = good && end < in_.size() && in_[end] == '}';
    if (!good) return Unsupported(2);
    ++end;
    if (end < in_.size() && (in_[end] == '+' || in_[end] == '?')) {
      return Unsupported(end + 1 - pos_);
    }
    Copy(end - pos_);
    return absl::OkStatus();
  }

  absl::Status Escape() {
    if (pos_ + 1 == in_.size()) return Unsupported(1);
    const char c = in_[pos_ + 1];
    switch (c) {
      case 's':
      case 'S':
        return Replace(2, SetOf(c == 'S', kSpaceSet));
      case 'w':
      case 'W':
        return Replace(2, SetOf(c == 'W', kWordSet));
      case 'h':
      case 'H':
        return Replace(2, SetOf(c == 'H', kHexSet));
      case 'b':
      case 'B':
        return Replace(2, Boundary(c == 'B'));
      case 'A':
      case 'z':
        Copy(2);
        return absl::OkStatus();
      default:
        return CommonEscape();
    }
  }

  // One that may stand in a set, too, and means the same there.
  absl::Status CommonEscape() {
    const char c = in_[pos_ + 1];
    switch (c) {
      case 'p':
      case 'P':
        return Property();
      case 'v':
        return Replace(2, R"(\x{0B})");
      case 'u':
        return FourDigits();
      case 'x':
        return TwoDigits();
      case 'd':
      case 'D':
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        Copy(2);
        return absl::OkStatus();
      default:
        // A character that is no letter or digit stands for itself.
        if (absl::ascii_isalnum(c) || !absl::ascii_isascii(c)) {
          return Unsupported(2);
        }
        Copy(2);
        return absl::OkStatus();
    }
  }

  // \p{Name}, \p{^Name}, \P{Name}: general categories and scripts, whose short
  // names are the same in both.
  absl::Status Property() {
    const size_t close = in_.find('}', pos_);
    if (!absl::StartsWith(in_.substr(pos_ + 2), "{") ||
        close == absl::string_view::npos) {
      return Unsupported(3);
    }
    Copy(close + 1 - pos_);
    return absl::OkStatus();
  }

  absl::Status FourDigits() {
    const absl::string_view digits = in_.substr(pos_ + 2, 4);
    if (digits.size() < 4 || !IsHex(digits)) return Unsupported(2);
    return Replace(6, absl::StrCat("\\x{", digits, "}"));
  }

  // \x{H...} or \xHH, whose value must be ASCII: above, Oniguruma takes it for
  // a byte.
  absl::Status TwoDigits() {
    if (absl::StartsWith(in_.substr(pos_ + 2), "{")) {
      const size_t close = in_.find('}', pos_);
      if (close == absl::string_view::npos ||
          !IsHex(in_.substr(pos_ + 3, close - pos_ - 3))) {
        return Unsupported(3);
      }
      Copy(close + 1 - pos_);
      return absl::OkStatus();
    }
    const absl::string_view digits = in_.substr(pos_ + 2, 2);
    if (digits.size() < 2 || !IsHex(digits) || digits[0] > '7') {
      return Unsupported(4);
    }
    Copy(4);
    return absl::OkStatus();
  }

  absl::Status Set() {
    Copy(1);
    if (At("^")) Copy(1);
    bool first = true;
    for (; pos_ < in_.size(); first = false) {
      if (At("]")) {
        // An empty set to Oniguruma, a member to PCRE2.
        if (first) return Unsupported(1);
        Copy(1);
        return absl::OkStatus();
      }
      // A set within a set, [:alpha:], and an intersection.
      if (At("[") || At("&&")) return Unsupported(2);
      if (At("\\")) {
        QK_RETURN_IF_ERROR(SetEscape());
      } else {
        Copy(1);
      }
    }
    return Unsupported(1);
  }

  absl::Status SetEscape() {
    if (pos_ + 1 == in_.size()) return Unsupported(1);
    switch (in_[pos_ + 1]) {
      case 's':
        return Replace(2, kSpaceSet);
      case 'w':
        return Replace(2, kWordSet);
      case 'h':
        return Replace(2, kHexSet);
      case 'S':
      case 'W':
      case 'H':
      case 'b':
        return Unsupported(2);
      default:
        return CommonEscape();
    }
  }

  static bool IsHex(absl::string_view text) {
    for (const char c : text) {
      if (!absl::ascii_isxdigit(c)) return false;
    }
    return !text.empty();
  }
  static std::string SetOf(bool negated, absl::string_view members) {
    return absl::StrCat(negated ? "[^" : "[", members, "]");
  }
  static std::string Boundary(bool negated) {
    const std::string w = SetOf(false, kWordSet);
    return negated ? absl::StrCat("(?:(?<=", w, ")(?=", w, ")|(?<!", w, ")(?!",
                                  w, "))")
                   : absl::StrCat("(?:(?<=", w, ")(?!", w, ")|(?<!", w,
                                  ")(?=", w, "))");
  }
  absl::Status Replace(size_t bytes, absl::string_view text) {
    absl::StrAppend(&out_, text);
    pos_ += bytes;
    return absl::OkStatus();
  }

  absl::string_view in_;
  size_t pos_ = 0;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslatePattern(absl::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace qk
