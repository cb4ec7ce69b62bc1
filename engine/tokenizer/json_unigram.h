// Reads a `model` of type Unigram in tokenizer.json.
#ifndef QKSCOPE_ENGINE_TOKENIZER_JSON_UNIGRAM_H_
#define QKSCOPE_ENGINE_TOKENIZER_JSON_UNIGRAM_H_

#include "absl/status/status.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/tokenizer_spec.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {

// Fills in the tokens, their scores and the settings of the model. `index`
// receives every token, and the last id of one that is there twice; its keys
// live in the document of `model`.
absl::Status ReadJsonUnigram(const JsonValue& model, TokenIndex* index,
                             TokenizerSpec* spec);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_UNIGRAM_H_
