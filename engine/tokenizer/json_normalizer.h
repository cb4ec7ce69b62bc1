// Reads the `normalizer` member of tokenizer.json.
#ifndef QKSCOPE_ENGINE_TOKENIZER_JSON_NORMALIZER_H_
#define QKSCOPE_ENGINE_TOKENIZER_JSON_NORMALIZER_H_

#include "absl/status/status.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/normalizer.h"

namespace qk {

absl::Status ReadJsonNormalizer(const JsonValue& root, Normalizer* normalizer);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_NORMALIZER_H_
