// The entries of a GGUF file that all kinds of tokenizers have.
#ifndef QKSCOPE_ENGINE_TOKENIZER_GGUF_ENTRIES_H_
#define QKSCOPE_ENGINE_TOKENIZER_GGUF_ENTRIES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/formats/gguf.h"
#include "engine/tokenizer/bpe_tokenizer.h"
#include "engine/tokenizer/piece_vocabulary.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {

// The digest of all tokenizer.* entries in the order of their keys, each as
// size of key, key, type, element type, count, size of value, value: the
// numbers as 8 bytes little-endian, the value as it lies in the file. Tensors
// and the order of the file do not matter.
std::string GgufTokenizerDigest(const GgufFile& file);

absl::Status ReadGgufTokens(const GgufFile& file, TokenIndex* index,
                            BpeTokenizerSpec* spec);

// The types, of which `last` is the last one allowed. Control tokens become
// special, and unknown ones where bytes are allowed; user-defined ones are
// found in any text.
absl::StatusOr<std::vector<int64_t>> ReadGgufTokenTypes(const GgufFile& file,
                                                        PieceType last,
                                                        BpeTokenizerSpec* spec);

// The id in the entry tokenizer.ggml.NAME, if there is one.
absl::StatusOr<std::optional<int32_t>> ReadGgufId(const GgufFile& file,
                                                  absl::string_view name,
                                                  const BpeTokenizerSpec& spec);

// BOS, EOS, EOT, and which are put in; `adds_bos` unless the
// file says otherwise.
absl::Status ReadGgufSpecialIds(const GgufFile& file, bool adds_bos,
                                BpeTokenizerSpec* spec);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_GGUF_ENTRIES_H_
