// The tokenizer's `normalizer` changes a text before it is cut into words.
#ifndef QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/edited_text.h"

namespace qk {

// The character that stands for a space in SentencePiece vocabularies: U+2581.
inline constexpr absl::string_view kMetaspace = "\u2581";

struct NormalizerStep {
  enum class Kind {
    kNfc,
    kPrepend,  // puts `to` before the text
    kReplace,  // `from` becomes `to`
  };
  Kind kind;
  std::string from;
  std::string to;
};

// The steps in order. Each kind occurs at most once, which bounds how much a
// text can grow.
using Normalizer = std::vector<NormalizerStep>;

// `text` must be valid UTF-8 and outlive the result.
EditedText Normalize(const Normalizer& normalizer, absl::string_view text);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_
