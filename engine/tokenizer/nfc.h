// Unicode's normalisation form C, in the version that `tokenizers` has.
#ifndef QKSCOPE_ENGINE_TOKENIZER_NFC_H_
#define QKSCOPE_ENGINE_TOKENIZER_NFC_H_

#include "absl/strings/string_view.h"
#include "engine/tokenizer/edited_text.h"

namespace qk {

// Writes what NFC changes in `text` (valid UTF-8) to `edit`, an edit of this
// text.
void ApplyNfc(absl::string_view text, TextEdit* edit);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_NFC_H_
