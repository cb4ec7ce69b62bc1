// The GGUF entries that all kinds of tokenizers have.
#ifndef QKSCOPE_ENGINE_TOKENIZER_GGUF_ENTRIES_H_
#define QKSCOPE_ENGINE_TOKENIZER_GGUF_ENTRIES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/formats/gguf.h"
#include "engine/tokenizer/piece_vocabulary.h"
#include "engine/tokenizer/tokenizer_spec.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {

// Returns the digest of all tokenizer.* entries in the order of their keys.
// Each entry contributes the size of the key, the key, the type, the element
// type, the count, the size of the value and the value: numbers as 8 bytes
// little-endian, the value as it lies in the file. Tensors and the file's order
// do not matter.
std::string GgufTokenizerDigest(const GgufFile& file);

absl::Status ReadGgufTokens(const GgufFile& file, TokenIndex* index,
                            TokenizerSpec* spec);

// Reads the token types; `last` is the largest one allowed. Control tokens
// become special tokens, and so do unknown ones where the vocabulary has bytes;
// user-defined tokens match any text.
absl::StatusOr<std::vector<int64_t>> ReadGgufTokenTypes(const GgufFile& file,
                                                        PieceType last,
                                                        TokenizerSpec* spec);

// Returns the id in the entry tokenizer.ggml.NAME, if it exists.
absl::StatusOr<std::optional<int32_t>> ReadGgufId(const GgufFile& file,
                                                  absl::string_view name,
                                                  const TokenizerSpec& spec);

// Reads BOS, EOS and EOT and which of them Encode adds. `adds_bos` holds unless
// the file says otherwise.
absl::Status ReadGgufSpecialIds(const GgufFile& file, bool adds_bos,
                                TokenizerSpec* spec);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_GGUF_ENTRIES_H_
