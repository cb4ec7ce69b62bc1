// The model of a tokenizer turns words into tokens: byte pair encoding
// (BpeModel) or unigram (UnigramModel).
#ifndef QKSCOPE_ENGINE_TOKENIZER_TOKENIZER_MODEL_H_
#define QKSCOPE_ENGINE_TOKENIZER_TOKENIZER_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/merged_words.h"

namespace qk {

// The best way to spell the bytes up to a place of a word.
struct BestPath {
  double score;
  uint32_t begin;  // of its last token
  int32_t id;      // of its last token; -1: there is no way
};

// Memory that one call passes from word to word.
struct ModelScratch {
  std::vector<BpeSymbol> symbols;
  MergedWords merged;
  std::vector<BestPath> paths;
};

// Thread-safe.
class TokenizerModel {
 public:
  using Visit = absl::FunctionRef<void(int32_t id, size_t begin, size_t end)>;

  virtual ~TokenizerModel() = default;

  // Calls `visit` for the tokens of `word` (valid UTF-8) in order, each with
  // the bytes [begin, end) of the word from which it came. `with_special`: the
  // word may spell a special token.
  // INVALID_ARGUMENT: the model has nothing for one of the characters.
  virtual absl::Status Encode(absl::string_view word, bool with_special,
                              ModelScratch* scratch, Visit visit) const = 0;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_TOKENIZER_MODEL_H_
