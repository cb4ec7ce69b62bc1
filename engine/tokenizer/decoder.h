// The `decoder` of a tokenizer: what becomes of tokens' spellings in text.
#ifndef QKSCOPE_ENGINE_TOKENIZER_DECODER_H_
#define QKSCOPE_ENGINE_TOKENIZER_DECODER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace qk {

struct TokenDecoder {
  enum class Kind {
    kByteLevel,  // GPT-2's byte alphabet
    kReplace,    // SentencePiece's: below
  };
  Kind kind = Kind::kByteLevel;

  // Of kReplace: `from` becomes `to` in each token, "" for nothing;
  std::string from;
  std::string to;
  // byte tokens become their bytes;
  bool byte_fallback = false;
  // of the whole text up to `strip_left` times `stripped` go from the front;
  std::string stripped;
  int strip_left = 0;
  // in the first token `from` is left out.
  bool first_without = false;

  // The bytes of a token.
  std::string Piece(absl::string_view token) const;
  // Those of a first token, where they differ.
  std::optional<std::string> FirstPiece(absl::string_view token) const;
  // The text without what is stripped.
  std::string Finish(std::string text) const;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_DECODER_H_
