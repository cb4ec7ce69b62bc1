// GPT-2's byte alphabet: byte-level vocabularies spell every byte as one
// printable character (the space as U+0120), so that tokens are plain text.
#ifndef QKSCOPE_ENGINE_TOKENIZER_BYTE_LEVEL_H_
#define QKSCOPE_ENGINE_TOKENIZER_BYTE_LEVEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace qk {

// Returns the character that stands for `byte`, in UTF-8.
std::string ByteLevelSpelling(uint8_t byte);

// Returns the bytes that `token` (valid UTF-8) spells; nullopt if one of its
// characters is not in the alphabet.
std::optional<std::string> ByteLevelBytes(absl::string_view token);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_BYTE_LEVEL_H_
