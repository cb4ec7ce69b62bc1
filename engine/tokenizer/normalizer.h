// The `normalizer` of a tokenizer: what is done to a text before it is cut.
#ifndef QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/tokenizer/edited_text.h"

namespace qk {

// What stands for a space in SentencePiece vocabularies: U+2581.
inline constexpr absl::string_view kMetaspace = "\u2581";

struct NormalizerStep {
  enum class Kind {
    kNfc,
    kPrepend,  // `to` goes before the text
    kReplace,  // `from` becomes `to`
  };
  Kind kind;
  std::string from;
  std::string to;
};

// In their order; each kind at most once, which bounds how a text can grow.
using Normalizer = std::vector<NormalizerStep>;

// `text`: valid UTF-8; must outlive the result.
EditedText Normalize(const Normalizer& normalizer, absl::string_view text);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_
