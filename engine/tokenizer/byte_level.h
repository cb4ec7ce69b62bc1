// GPT-2's byte alphabet: byte-level vocabularies spell every byte as one
// printable character (the space as U+0120), so that tokens are plain text.
#ifndef QKSCOPE_ENGINE_TOKENIZER_BYTE_LEVEL_H_
#define QKSCOPE_ENGINE_TOKENIZER_BYTE_LEVEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace qk {

// The character that stands for `byte`, in UTF-8.
std::string ByteLevelSpelling(uint8_t byte);

// The bytes that `token` spells; nullopt if a character is not of the alphabet.
// The token must be valid UTF-8.
std::optional<std::string> ByteLevelBytes(absl::string_view token);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_BYTE_LEVEL_H_
