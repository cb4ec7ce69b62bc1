// Byte tokens, "<0x0A>": what vocabularies of characters have for the bytes of
// characters they lack.
#ifndef QKSCOPE_ENGINE_TOKENIZER_BYTE_FALLBACK_H_
#define QKSCOPE_ENGINE_TOKENIZER_BYTE_FALLBACK_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

using ByteTokens = std::array<int32_t, 256>;  // ids by byte

// Whether a token is written like a byte token: <0x and two more characters.
bool LooksLikeByteToken(absl::string_view token);

// The byte; an error (a message without a place, for the caller to wrap) if
// the token is none.
absl::StatusOr<uint8_t> ByteOfToken(absl::string_view token);

// The byte tokens among `tokens`, those by id. An error like that of
// ByteOfToken if one is malformed or missing.
absl::StatusOr<ByteTokens> FindByteTokens(
    const std::vector<std::string>& tokens);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_BYTE_FALLBACK_H_
