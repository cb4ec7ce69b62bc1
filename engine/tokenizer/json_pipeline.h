// Reads the members of tokenizer.json around the model: normalizer,
// pre_tokenizer, post_processor, decoder, truncation, padding.
#ifndef QKSCOPE_ENGINE_TOKENIZER_JSON_PIPELINE_H_
#define QKSCOPE_ENGINE_TOKENIZER_JSON_PIPELINE_H_

#include "absl/status/status.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace qk {

// Fills in what the members say; spec->tokens must be set. Anything that would
// change the tokens and is not implemented is an error. truncation and padding
// are checked and ignored: a prompt is never cut silently.
absl::Status ReadJsonPipeline(const JsonValue& root, TokenizerSpec* spec);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_PIPELINE_H_
