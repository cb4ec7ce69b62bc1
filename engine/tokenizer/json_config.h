// Reads tokenizer_config.json.
#ifndef QKSCOPE_ENGINE_TOKENIZER_JSON_CONFIG_H_
#define QKSCOPE_ENGINE_TOKENIZER_JSON_CONFIG_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/bpe_tokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {

// Reads a special token, which is written as its text or as an object with the
// text as `content`. Returns nullopt if the member is missing.
absl::StatusOr<std::optional<int32_t>> ReadConfigToken(const JsonValue& config,
                                                       absl::string_view key,
                                                       const TokenIndex& index);

// Sets spec->bos_id and the first of spec->stop_ids, if the file names them.
absl::Status ReadBosAndEos(const JsonValue& config, const TokenIndex& index,
                           BpeTokenizerSpec* spec);

// Reads "added_tokens_decoder": each member has the flags of a token, which may
// be an additional token.
absl::Status AddConfigTokens(const JsonValue& config, BpeTokenizerSpec* spec);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_JSON_CONFIG_H_
