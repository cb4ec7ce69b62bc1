// Normalizer steps that change or drop single characters.
#ifndef QKSCOPE_ENGINE_TOKENIZER_CHAR_CHANGES_H_
#define QKSCOPE_ENGINE_TOKENIZER_CHAR_CHANGES_H_

#include "absl/strings/string_view.h"
#include "engine/tokenizer/edited_text.h"

namespace qk {

// Each writes what it changes in `text` (valid UTF-8) to `edit`, an edit of
// this text.

// SentencePiece's rules "nmt": control characters go, and other whitespace and
// what stands for it becomes a space.
void ApplyNmt(absl::string_view text, TextEdit* edit);

// Lower case by Unicode 17, without regard to what stands around a character.
void ApplyLowercase(absl::string_view text, TextEdit* edit);

// Marks go (\p{M} of Unicode 9).
void ApplyStripAccents(absl::string_view text, TextEdit* edit);

enum class Side { kLeft, kRight, kBoth };
// Whitespace, or only U+0020, at the sides of the text goes.
void ApplyStrip(Side side, bool only_spaces, absl::string_view text,
                TextEdit* edit);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_CHAR_CHANGES_H_
