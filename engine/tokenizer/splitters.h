// The known word patterns of BPE, each a hand-written scanner: no
// pattern from a file is ever run. All are linear in the piece they return.
#ifndef QKSCOPE_ENGINE_TOKENIZER_SPLITTERS_H_
#define QKSCOPE_ENGINE_TOKENIZER_SPLITTERS_H_

#include <cstddef>

#include "absl/strings/string_view.h"

namespace qk {

// The end of the piece that starts at `begin` < text.size(). Valid UTF-8 only;
// begins and ends lie between characters.
using Splitter = size_t (*)(absl::string_view text, size_t begin);

// Every numeric character alone, and the runs between them.
size_t NextDigit(absl::string_view text, size_t begin);

// Runs of numeric characters, and the runs between them.
size_t NextDigitRun(absl::string_view text, size_t begin);

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t NextGpt2(absl::string_view text, size_t begin);

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
size_t NextLlama3(absl::string_view text, size_t begin);

// The same with \p{N} for \p{N}{1,3}.
size_t NextQwen2(absl::string_view text, size_t begin);

// After each space (U+0020).
size_t NextAfterSpace(absl::string_view text, size_t begin);

// Before each U+2581.
size_t NextBeforeMetaspace(absl::string_view text, size_t begin);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_SPLITTERS_H_
