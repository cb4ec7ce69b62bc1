#include "engine/tokenizer/charsmap.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/utf8.h"
#include "engine/tokenizer/graphemes.h"
#include "engine/tokenizer/unicode.h"

namespace qk {
namespace {

// Longer clusters are replaced character by character.
constexpr size_t kMaxClusterBytes = 5;
// Far more new characters for each byte than any real rules make: bounds the
// memory.
constexpr size_t kMaxCharsPerByte = 16;
constexpr size_t kSmallText = 4096;

// Parts of a unit of the double array.
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Value(uint32_t unit) { return unit & 0x7fffffffu; }
uint32_t Label(uint32_t unit) { return unit & 0x800000ffu; }
uint64_t Offset(uint32_t unit) {
  return uint64_t{unit >> 10} << ((unit & 1u << 9) >> 6);
}

uint32_t LittleEndian(absl::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  }
  return value;
}

size_t CountChars(absl::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (c & 0xc0) != 0x80; });
}

// The new characters, and for each how `tokenizers` aligns it: 0 if it takes
// the place of an old one, 1 if it comes after one that did, -n if it takes the
// place of one and n more.
class Changes {
 public:
  void Keep(absl::string_view old) {
    for (size_t at = 0; at < old.size();) {
      const Utf8Char c = Utf8At(old, at);
      chars_.push_back({c.code, 0});
      at += c.size;
    }
  }

  void Replace(absl::string_view old, absl::string_view made) {
    Keep(made);
    auto more = static_cast<int32_t>(CountChars(made)) -
                static_cast<int32_t>(CountChars(old));
    if (more < 0) {
      if (chars_.empty()) {
        removed_first_ -= more;
      } else {
        chars_.back().change += more;
      }
    }
    for (auto c = chars_.rbegin(); more > 0; ++c, --more) c->change = 1;
  }

  size_t size() const { return chars_.size(); }

  void WriteTo(absl::string_view text, TextEdit* edit) const {
    size_t at = SkipChars(text, 0, removed_first_);
    edit->SkipTo(at);
    size_t previous = at;  // the old character before `at`
    std::string made;
    for (const Char& c : chars_) {
      made.clear();
      AppendUtf8(c.code, &made);
      if (c.change > 0) {
        edit->CopyTo(at);
        edit->Make(made, previous, at);
        continue;
      }
      previous = at;
      at = SkipChars(text, at, 1);
      // What goes at the begin counts for the first character that stays: then
      // the text still begins where the old one did.
      const size_t from = &c == chars_.data() ? 0 : previous;
      if (from < previous || made != text.substr(previous, at - previous)) {
        edit->CopyTo(previous);
        edit->Make(made, from, at);
        edit->SkipTo(at);
      }
      if (c.change < 0) {
        edit->CopyTo(at);
        const size_t removed = at;
        at = SkipChars(text, at, -c.change);
        previous = at > removed ? at - Utf8Before(text, at).size : previous;
        edit->SkipTo(at);
      }
    }
  }

 private:
  struct Char {
    char32_t code;
    int32_t change;
  };

  static size_t SkipChars(absl::string_view text, size_t at, int32_t count) {
    for (; count > 0 && at < text.size(); --count) at += Utf8At(text, at).size;
    return at;
  }

  std::vector<Char> chars_;
  int32_t removed_first_ = 0;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const Charsmap>> Charsmap::Create(
    absl::string_view bytes) {
  const size_t units = bytes.size() < 4 ? 0 : LittleEndian(bytes, 0) / 4;
  if (bytes.size() < 4 || (bytes.size() - 4) / 4 < units) {
    return absl::InvalidArgumentError(
        absl::StrCat("precompiled_charsmap: ", bytes.size(),
                     " bytes are too few for its trie of ", units, " units"));
  }
  std::shared_ptr<Charsmap> map(new Charsmap);
  map->units_.reserve(units);
  for (size_t i = 0; i < units; ++i) {
    map->units_.push_back(LittleEndian(bytes, 4 + 4 * i));
  }
  map->texts_ = std::string(bytes.substr(4 + 4 * units));
  if (FindInvalidUtf8(map->texts_).has_value()) {
    return absl::InvalidArgumentError(
        "precompiled_charsmap: its texts are not UTF-8");
  }
  return map;
}

std::optional<absl::string_view> Charsmap::Find(absl::string_view chunk) const {
  if (units_.empty()) return std::nullopt;
  uint64_t at = Offset(units_[0]);
  for (const char c : chunk) {
    const auto byte = static_cast<unsigned char>(c);
    at ^= byte;
    if (byte == 0 || at >= units_.size() || Label(units_[at]) != byte) {
      return std::nullopt;
    }
    const uint32_t unit = units_[at];
    at ^= Offset(unit);
    if (!HasLeaf(unit)) continue;
    if (at >= units_.size()) return std::nullopt;
    const size_t begin = Value(units_[at]);
    if (begin > texts_.size()) return std::nullopt;
    const absl::string_view text = absl::string_view(texts_).substr(begin);
    const bool inside_char = !text.empty() && (text[0] & 0xc0) == 0x80;
    if (inside_char) return std::nullopt;
    return text.substr(0, text.find('\0'));
  }
  return std::nullopt;
}

void Charsmap::Apply(absl::string_view text, TextEdit* edit) const {
  Changes changes;
  bool changed = false;
  const auto replace = [&](absl::string_view part) {
    const auto made = Find(part);
    if (made.has_value()) changes.Replace(part, *made);
    changed |= made.has_value();
    return made.has_value();
  };
  const size_t limit = kMaxCharsPerByte * text.size() + kSmallText;
  for (size_t at = 0; at < text.size();) {
    if (changes.size() > limit) return edit->Overflow();
    const size_t end = GraphemeEnd(text, at);
    const absl::string_view cluster = text.substr(at, end - at);
    if (cluster.size() > kMaxClusterBytes || !replace(cluster)) {
      for (; at < end; at += Utf8At(text, at).size) {
        const absl::string_view part = text.substr(at, Utf8At(text, at).size);
        if (!replace(part)) changes.Keep(part);
      }
    }
    at = end;
  }
  if (changed) changes.WriteTo(text, edit);
}

}  // namespace qk
