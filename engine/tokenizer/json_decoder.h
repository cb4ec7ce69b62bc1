// Reads the `decoder` member of tokenizer.json.
#ifndef QKSCOPE_ENGINE_TOKENIZER_JSON_DECODER_H_
#define QKSCOPE_ENGINE_TOKENIZER_JSON_DECODER_H_

#include "absl/status/status.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace qk {

// Fills in the decoder; spec->byte_level must be set.
absl::Status ReadJsonDecoder(const JsonValue& root, TokenizerSpec* spec);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_DECODER_H_
