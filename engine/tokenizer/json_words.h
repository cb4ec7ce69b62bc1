// Reads the `pre_tokenizer` member of tokenizer.json.
#ifndef QKSCOPE_ENGINE_TOKENIZER_JSON_WORDS_H_
#define QKSCOPE_ENGINE_TOKENIZER_JSON_WORDS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace qk {

// Fills in the pre-tokenizer, and whether the vocabulary is byte-level.
absl::Status ReadJsonPreTokenizer(const JsonValue& root, TokenizerSpec* spec);

// Reads Metaspace's `prepend_scheme`, or the older `add_prefix_space`. It is an
// error if `replacement` is not kMetaspace.
absl::StatusOr<PieceSpelling::Prefix> ReadPrependScheme(const JsonValue& step);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_WORDS_H_
