// Cuts text into words; a token lies within a word.
#ifndef QKSCOPE_ENGINE_TOKENIZER_PRE_TOKENIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_PRE_TOKENIZER_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/edited_text.h"
#include "engine/tokenizer/splitter.h"

namespace qk {

// How a piece of text is respelled before it is cut into words.
struct PieceSpelling {
  enum class Prefix {
    kNever,
    kFirst,  // before the piece with which the whole text begins
    kAlways,
  };
  // The character that stands for a space: " " or kMetaspace.
  absl::string_view space = " ";
  // Where `space` is added before pieces that do not start with it.
  Prefix prefix = Prefix::kNever;
};

struct PreTokenizer {
  // Each splitter cuts the pieces that the one before it made.
  std::vector<Splitter> splitters;
  // Then each piece is respelled like this,
  PieceSpelling spelling;
  // and these splitters cut the respelled text.
  std::vector<Splitter> after;

  // Whether PCRE2 runs a pattern from the file.
  bool runs_pattern() const;
};

// One word: bytes [begin, begin + bytes.size()) of the respelled piece.
struct Word {
  absl::string_view bytes;
  size_t begin;
  const EditedText* piece;
  size_t piece_begin;  // in the text

  // Returns the bytes of the text from which bytes [first, last) of the word
  // came.
  std::pair<size_t, size_t> ToText(size_t first, size_t last) const {
    const auto [from, to] = piece->ToOriginal(begin + first, begin + last);
    return {piece_begin + from, piece_begin + to};
  }
};

// Calls `visit` for all words in order. The words cover `text` (valid UTF-8)
// but for what a splitter drops. A word is valid during the call only.
// `begins_prompt` says whether what starts at a byte of the text came from a
// prompt's begin. Errors: Splitter::ForEachPiece's.
absl::Status ForEachWord(const PreTokenizer& pre_tokenizer,
                         absl::string_view text,
                         absl::FunctionRef<bool(size_t at)> begins_prompt,
                         PatternScratch* scratch,
                         absl::FunctionRef<void(const Word&)> visit);

// What a GGUF file's `tokenizer.ggml.pre` stands for.
struct GgufPreTokenizer {
  // Patterns, each of which cuts the pieces that the one before it made.
  std::vector<absl::string_view> patterns;
  bool nfc = false;
  bool ignore_merges = false;
  bool adds_bos = false;  // unless the file says otherwise
};

// Returns nullptr if the name is not known.
const GgufPreTokenizer* FindGgufPreTokenizer(absl::string_view name);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_PRE_TOKENIZER_H_
