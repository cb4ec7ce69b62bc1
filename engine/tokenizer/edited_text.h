// A text that is changed in steps and knows where each of its bytes came from.
#ifndef QKSCOPE_ENGINE_TOKENIZER_EDITED_TEXT_H_
#define QKSCOPE_ENGINE_TOKENIZER_EDITED_TEXT_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace qk {

// One pass over a text that makes a new one. Calls go from its begin to its
// end; places are bytes of the text that is read.
class TextEdit {
 public:
  // `text` must outlive the edit. What would grow the new text over `limit`
  // bytes is left out; see overflows().
  TextEdit(absl::string_view text, size_t limit) : text_(text), limit_(limit) {}

  // Copies everything up to `at`.
  void CopyTo(size_t at);
  void SkipTo(size_t at) { done_ = at; }
  // Writes `made`, all of which came from [begin, end), and reads nothing.
  void Make(absl::string_view made, size_t begin, size_t end);
  // Writes `unit` in place of each `from_size` bytes up to `end`.
  void Replace(absl::string_view unit, size_t from_size, size_t end);
  // Says that the new text would be too long.
  void Overflow() { overflows_ = true; }

 private:
  friend class EditedText;

  // Describes bytes of made_ from `begin` to the next span's begin. Each
  // `made_unit` of them came from `text_unit` bytes, the first from those at
  // `text_begin`; or, if made_unit is 0, all came from [text_begin, text_end).
  struct Span {
    size_t begin;
    size_t text_begin;
    size_t text_end;
    size_t made_unit;
    size_t text_unit;
  };

  bool changed() const { return !spans_.empty() || done_ > 0 || overflows_; }
  bool overflows() const { return overflows_; }
  // Whether `bytes` more are allowed.
  bool HasRoom(size_t bytes);
  std::pair<size_t, size_t> ToText(size_t begin, size_t end) const;

  absl::string_view text_;  // after the edit only its size matters
  size_t limit_;
  size_t done_ = 0;
  std::string made_;
  std::vector<Span> spans_;
  bool overflows_ = false;
};

class EditedText {
 public:
  // `original` must be valid UTF-8 and outlive this object.
  explicit EditedText(absl::string_view original)
      : original_(original),
        limit_(kMaxGrowth * original.size() + kSmallText) {}

  // Views are valid until the next change.
  absl::string_view text() const {
    return edits_.empty() ? original_ : edits_.back().made_;
  }

  // Begins an edit of text(), for Keep().
  TextEdit Edit() const { return TextEdit(text(), limit_); }
  void Keep(TextEdit edit);

  // Puts `prefix` before a text that is not empty.
  void Prepend(absl::string_view prefix);
  // Replaces every `from`, which must not be empty. What replaces more than one
  // character came from the last of them, as in `tokenizers`.
  void Replace(absl::string_view from, absl::string_view to);

  // Whether a step would have made a far longer text than the original; then
  // text() lacks a part.
  bool overflows() const { return overflows_; }

  // Returns the bytes of the original from which bytes [begin, end) of text()
  // came. Characters that a normal form composed or reordered came from all
  // bytes that took part. Prepended bytes came from none.
  std::pair<size_t, size_t> ToOriginal(size_t begin, size_t end) const;

 private:
  // No real normalizer makes a text 64 times as long: that bounds the memory.
  static constexpr size_t kMaxGrowth = 64;
  static constexpr size_t kSmallText = 4096;

  absl::string_view original_;
  size_t limit_;
  bool overflows_ = false;
  std::vector<TextEdit> edits_;  // each edits the text that the one before made
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_EDITED_TEXT_H_
