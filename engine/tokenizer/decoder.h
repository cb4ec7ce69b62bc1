// The tokenizer's `decoder` turns the spellings of tokens into text.
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
    kReplace,    // as SentencePiece does: see below
  };
  Kind kind = Kind::kByteLevel;

  // The steps of kReplace. In each token `from` becomes `to` ("" removes it);
  std::string from;
  std::string to;
  // byte tokens become their bytes;
  bool byte_fallback = false;
  // from the front of the whole text up to `strip_left` times `stripped` is
  // removed;
  std::string stripped;
  int strip_left = 0;
  // and `from` is left out of the first token.
  bool first_without = false;

  // Returns the bytes of a token.
  std::string Piece(absl::string_view token) const;
  // Returns the bytes of a first token, where they differ.
  std::optional<std::string> FirstPiece(absl::string_view token) const;
  // Returns the text without what is stripped.
  std::string Finish(std::string text) const;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_DECODER_H_
