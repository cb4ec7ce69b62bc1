// The tokenizer's `decoder` turns the spellings of tokens into text.
#ifndef QKSCOPE_ENGINE_TOKENIZER_DECODER_H_
#define QKSCOPE_ENGINE_TOKENIZER_DECODER_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace qk {

struct DecoderStep {
  enum class Kind {
    kReplace,       // `from` becomes `to`, which may be empty
    kByteFallback,  // a byte token becomes its byte
    kMetaspace,     // `from` becomes a space, and nothing in the first token
    kStrip,         // `from` goes, up to `left` and `right` times at the sides
  };
  Kind kind;
  std::string from = {};
  std::string to = {};
  int left = 0;
  int right = 0;
};

struct TokenDecoder {
  // Tokens are spelled in GPT-2's byte alphabet, and no step counts.
  bool byte_level = true;
  std::vector<DecoderStep> token_steps;  // for each token by itself
  std::vector<DecoderStep> text_steps;   // for all of them together

  // Returns the bytes of a token.
  std::string Piece(absl::string_view token) const;
  // Returns the bytes of a first token, where they differ.
  std::optional<std::string> FirstPiece(absl::string_view token) const;
  // Returns the text that the pieces make together.
  std::string Finish(std::string text) const;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_DECODER_H_
