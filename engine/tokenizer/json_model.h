// Reads the `model` and `added_tokens` members of tokenizer.json.
#ifndef QKSCOPE_ENGINE_TOKENIZER_JSON_MODEL_H_
#define QKSCOPE_ENGINE_TOKENIZER_JSON_MODEL_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/token_adder.h"
#include "engine/tokenizer/tokenizer_spec.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {

// Fills in the tokens, merges or scores, and settings of the model. `index`
// receives every token; its keys live in the document of `root`.
absl::Status ReadJsonModel(const JsonValue& root, TokenIndex* index,
                           TokenizerSpec* spec);

// Adds what "added_tokens" lists.
absl::Status ReadJsonAddedTokens(const JsonValue& root, TokenAdder* adder);

// Enters the tokens of `vocab`, {text: id}, into `index`.
absl::Status ReadVocab(const JsonValue& vocab, TokenIndex* index);

// Fills spec->tokens from `index`; errors name `root`. An id belongs to
// one token at most; one that nobody has gets an empty text, and is bounded.
absl::Status FillTokens(const JsonValue& root, const TokenIndex& index,
                        TokenizerSpec* spec);

// One added token as tokenizer.json and tokenizer_config.json write it, without
// its id.
absl::StatusOr<AddedToken> ReadAddedToken(const JsonValue& value);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_MODEL_H_
