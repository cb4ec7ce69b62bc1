// Unicode's normalisation forms (UAX #15), in the version that `tokenizers`
// has.
#ifndef QKSCOPE_ENGINE_TOKENIZER_NORMAL_FORMS_H_
#define QKSCOPE_ENGINE_TOKENIZER_NORMAL_FORMS_H_

#include "absl/strings/string_view.h"
#include "engine/tokenizer/edited_text.h"

namespace qk {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Writes what the form changes in `text` (valid UTF-8) to `edit`, an edit of
// this text.
void ApplyNormalForm(NormalForm form, absl::string_view text, TextEdit* edit);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_NORMAL_FORMS_H_
