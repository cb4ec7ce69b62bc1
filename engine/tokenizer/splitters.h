// The most common word patterns of BPE, each as a hand-written scanner
// (Splitter::Scanner), linear in the piece that it returns.
#ifndef QKSCOPE_ENGINE_TOKENIZER_SPLITTERS_H_
#define QKSCOPE_ENGINE_TOKENIZER_SPLITTERS_H_

#include <cstddef>

#include "absl/strings/string_view.h"

namespace qk {

// Cuts out every numeric character by itself, and the runs between them.
size_t NextDigit(absl::string_view text, size_t begin);

// Cuts out runs of numeric characters, and the runs between them.
size_t NextDigitRun(absl::string_view text, size_t begin);

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t NextGpt2(absl::string_view text, size_t begin);

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
size_t NextLlama3(absl::string_view text, size_t begin);

// The same pattern with \p{N} in place of \p{N}{1,3}.
size_t NextQwen2(absl::string_view text, size_t begin);

// Cuts out runs of whitespace, and the runs between them.
size_t NextSpaceRun(absl::string_view text, size_t begin);

// Cuts out runs of whitespace, of \w, and of what is neither.
size_t NextWordRun(absl::string_view text, size_t begin);

// Cuts after each space (U+0020).
size_t NextAfterSpace(absl::string_view text, size_t begin);

// Cuts before each U+2581.
size_t NextBeforeMetaspace(absl::string_view text, size_t begin);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_SPLITTERS_H_
