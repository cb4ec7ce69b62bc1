// Vocabularies of pieces with scores and types, as SentencePiece trains them
// and as GGUF stores them.
#ifndef QKSCOPE_ENGINE_TOKENIZER_PIECE_VOCABULARY_H_
#define QKSCOPE_ENGINE_TOKENIZER_PIECE_VOCABULARY_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace qk {

// The numbers are those of tokenizer.model and of GGUF's
// tokenizer.ggml.token_type.
enum PieceType : int64_t {
  kNormalPiece = 1,
  kUnknownPiece = 2,
  kControlPiece = 3,
  kUserDefinedPiece = 4,
  kUnusedPiece = 5,  // text never becomes one
  kBytePiece = 6,
};

// Where the tokenizer adds a space.
enum class PrefixSpace {
  kNever,
  kEveryPart,  // before the text and after each added token
  // Before a text that does not start with a space.
  kFirstPart,
};

// Fills in the settings of such a vocabulary, and its merges from `types` and
// `scores` (indexed by id). spec->tokens, spec->added and, unless there are
// byte tokens, spec->unknown_id must be set. Errors are messages without a
// place, for the caller to wrap.
absl::Status FillPieceVocabulary(const std::vector<int64_t>& types,
                                 const std::vector<float>& scores,
                                 PrefixSpace prefix, TokenizerSpec* spec);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_PIECE_VOCABULARY_H_
