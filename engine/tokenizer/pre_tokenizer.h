// Cuts text into the words within which BPE merges.
#ifndef QKSCOPE_ENGINE_TOKENIZER_PRE_TOKENIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_PRE_TOKENIZER_H_

#include <cstddef>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/splitters.h"

namespace qk {

struct PreTokenizer {
  // Each cuts the pieces of the one before.
  std::vector<Splitter> splitters;
  // Then a space is put before each piece that does not start with one,
  bool add_prefix_space = false;
  // and the pieces are cut by this one, unless it is nullptr.
  Splitter last = nullptr;
};

// One word and where it is in the text: byte i of `bytes` is byte
// `begin + i - added` of the text; the first `added` (0 or 1) are not in it.
struct Word {
  absl::string_view bytes;
  size_t begin;
  size_t added;
};

// Calls `visit` for all words in order. They cover `text`, valid UTF-8. A
// word's bytes live as long as the call.
void ForEachWord(const PreTokenizer& pre_tokenizer, absl::string_view text,
                 absl::FunctionRef<void(const Word&)> visit);

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
