#include "engine/tokenizer/graphemes.h"

#include <algorithm>

#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

using Class = GraphemeClass;

Class ClassOf(char32_t c) {
  if (c >= 0xac00 && c <= 0xd7a3) {
    return (c - 0xac00) % 28 == 0 ? Class::kLv : Class::kLvt;
  }
  const auto above = std::upper_bound(
      kGraphemeRanges.begin(), kGraphemeRanges.end(), uint32_t{c} << 8 | 0xff);
  return static_cast<Class>(*(above - 1) & 0xff);
}

bool IsControl(Class c) {
  return c == Class::kCr || c == Class::kLf || c == Class::kControl;
}

bool Extends(Class c) {
  return c == Class::kExtend || c == Class::kZwj || c == Class::kLinker ||
         c == Class::kOtherExtend;
}

// GB6 to GB8.
bool JoinsHangul(Class left, Class right) {
  switch (left) {
    case Class::kL:
      return right == Class::kL || right == Class::kV || right == Class::kLv ||
             right == Class::kLvt;
    case Class::kV:
    case Class::kLv:
      return right == Class::kV || right == Class::kT;
    case Class::kT:
    case Class::kLvt:
      return right == Class::kT;
    default:
      return false;
  }
}

// A cluster that grows by one character after another.
class Cluster {
 public:
  explicit Cluster(Class first) { Take(first); }

  // Whether the character belongs to the cluster.
  bool Joins(Class next) const {
    if (last_ == Class::kCr) return next == Class::kLf;  // GB3
    if (IsControl(last_) || IsControl(next)) return false;
    if (Extends(next) || next == Class::kSpacingMark) return true;
    if (last_ == Class::kPrepend || JoinsHangul(last_, next)) return true;
    switch (next) {
      case Class::kConsonant:  // GB9c
        return consonant_ && linked_;
      case Class::kPictograph:  // GB11
        return pictograph_ && last_ == Class::kZwj;
      case Class::kRegional:  // GB12, GB13
        return odd_regionals_;
      default:
        return false;
    }
  }

  void Take(Class next) {
    odd_regionals_ = next == Class::kRegional && !odd_regionals_;
    if (!Extends(next)) pictograph_ = next == Class::kPictograph;
    // A second ZWJ ends what the first one would join.
    if (last_ == Class::kZwj && next != Class::kPictograph) {
      pictograph_ = false;
    }
    if (next == Class::kConsonant) {
      consonant_ = true;
      linked_ = false;
    } else if (next == Class::kLinker) {
      linked_ = true;
    } else if (next != Class::kExtend && next != Class::kZwj) {
      consonant_ = false;
    }
    last_ = next;
  }

 private:
  Class last_ = Class::kOther;
  bool odd_regionals_ = false;
  bool pictograph_ = false;  // a pictograph and what extends it
  bool consonant_ = false;   // a consonant and what may join it to another
  bool linked_ = false;      // there is a linker after the consonant
};

}  // namespace

size_t GraphemeEnd(absl::string_view text, size_t begin) {
  const Utf8Char first = Utf8At(text, begin);
  Cluster cluster(ClassOf(first.code));
  size_t end = begin + first.size;
  while (end < text.size()) {
    const Utf8Char c = Utf8At(text, end);
    const bool both_ascii = c.code < 0x80 && end == begin + 1;
    if (both_ascii && c.code != '\n') break;
    const Class next = ClassOf(c.code);
    if (!cluster.Joins(next)) break;
    cluster.Take(next);
    end += c.size;
  }
  return end;
}

}  // namespace qk
