// Byte tokens such as "<0x0A>": vocabularies of characters use them for the
// bytes of characters that they lack.
#ifndef QKSCOPE_ENGINE_TOKENIZER_BYTE_FALLBACK_H_
#define QKSCOPE_ENGINE_TOKENIZER_BYTE_FALLBACK_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/vocabulary.h"

namespace qk {

using ByteTokens = std::array<int32_t, 256>;  // ids by byte; -1: none

// Returns whether a token is spelled like a byte token: <0x and two more
// characters.
bool LooksLikeByteToken(absl::string_view token);

// Returns the byte. If the token is not a byte token, the error is a message
// without a place, for the caller to wrap.
absl::StatusOr<uint8_t> ByteOfToken(absl::string_view token);

// Returns the byte tokens among `tokens` (indexed by id). Fails as ByteOfToken
// does if one is malformed or missing.
absl::StatusOr<ByteTokens> FindByteTokens(
    const std::vector<std::string>& tokens);

// Returns the byte tokens in `index`, spelled with capitals; all or some may be
// missing.
ByteTokens ByteTokensOf(const TokenIndex& index);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_BYTE_FALLBACK_H_
