// The tokenizer's `normalizer` changes a text before it is cut into words.
#ifndef QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/charsmap.h"
#include "engine/tokenizer/edited_text.h"
#include "engine/tokenizer/word_pattern.h"

namespace qk {

// The character that stands for a space in SentencePiece vocabularies: U+2581.
inline constexpr absl::string_view kMetaspace = "\u2581";

struct NormalizerStep {
  enum class Kind {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kNmt,             // control characters go, other whitespace becomes a space
    kLowercase,       // character by character
    kStripAccents,    // marks go
    kStripLeft,       // whitespace before the text goes
    kStripRight,      // and after it
    kStripSpaces,     // only U+0020, on both sides
    kPrepend,         // puts `to` before the text
    kReplace,         // `from` becomes `to`
    kReplacePattern,  // what `pattern` matches becomes `to`
    kCharsmap,        // SentencePiece's rules
  };
  Kind kind;
  std::string from = {};
  std::string to = {};
  std::shared_ptr<const WordPattern> pattern = nullptr;
  std::shared_ptr<const Charsmap> charsmap = nullptr;
};

// The steps in order.
using Normalizer = std::vector<NormalizerStep>;

// `text` must be valid UTF-8 and outlive the result. INVALID_ARGUMENT: the
// result would be far longer than the text, or WordPattern::ForEachMatch's.
absl::StatusOr<EditedText> Normalize(const Normalizer& normalizer,
                                     absl::string_view text);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_NORMALIZER_H_
