// Cuts text into the words within which BPE merges.
#ifndef QKSCOPE_ENGINE_TOKENIZER_PRE_TOKENIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_PRE_TOKENIZER_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/edited_text.h"
#include "engine/tokenizer/splitters.h"

namespace qk {

// How a piece of text is written before it becomes words.
struct PieceSpelling {
  enum class Prefix {
    kNever,
    kFirst,  // before the piece that the whole text begins with
    kAlways,
  };
  // What stands for a space: " " or kMetaspace.
  absl::string_view space = " ";
  // Where `space` is put before pieces that do not start with it.
  Prefix prefix = Prefix::kNever;
};

struct PreTokenizer {
  // Each cuts the pieces of the one before.
  std::vector<Splitter> splitters;
  // Then each piece is spelled like this,
  PieceSpelling spelling;
  // and cut by this one, unless it is nullptr.
  Splitter last = nullptr;
};

// One word, of bytes [begin, begin + bytes.size()) of the piece as spelled.
struct Word {
  absl::string_view bytes;
  size_t begin;
  const EditedText* piece;
  size_t piece_begin;  // in the text

  // The bytes of the text that bytes [first, last) of the word came from.
  std::pair<size_t, size_t> ToText(size_t first, size_t last) const {
    const auto [from, to] = piece->ToOriginal(begin + first, begin + last);
    return {piece_begin + from, piece_begin + to};
  }
};

// Calls `visit` for all words in order. They cover `text`, valid UTF-8. A word
// lives as long as the call. `is_first`: whether a prompt begins with the text.
void ForEachWord(const PreTokenizer& pre_tokenizer, absl::string_view text,
                 bool is_first, absl::FunctionRef<void(const Word&)> visit);

// The splitter of a `Split` step in tokenizer.json, by its exact pattern;
// nullptr if it is none we know.
Splitter SplitterOfPattern(absl::string_view pattern);

// What a GGUF file's `tokenizer.ggml.pre` stands for.
struct GgufPreTokenizer {
  absl::string_view name;
  std::vector<Splitter> splitters;
  bool nfc = false;
  bool ignore_merges = false;
  bool adds_bos = false;  // unless the file says otherwise
};

// nullptr if the name is none we know.
const GgufPreTokenizer* FindGgufPreTokenizer(absl::string_view name);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_PRE_TOKENIZER_H_
