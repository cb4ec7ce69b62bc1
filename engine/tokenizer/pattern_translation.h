// Word patterns as Oniguruma reads them, written for PCRE2.
#ifndef QKSCOPE_ENGINE_TOKENIZER_PATTERN_TRANSLATION_H_
#define QKSCOPE_ENGINE_TOKENIZER_PATTERN_TRANSLATION_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

// Returns a pattern for PCRE2 (options UTF, UCP, MULTILINE; newline LF) that
// matches what `pattern` (valid UTF-8) matches in Oniguruma. Errors are
// messages without a place: `unsupported "\h" at byte 7`. What follows has
// another meaning in PCRE2 or none and is refused: set operations (&&, a set
// within a set), named groups, calls, conditions, options but i, possessive
// intervals, and escapes that are not in the table of the .cc file.
absl::StatusOr<std::string> TranslatePattern(absl::string_view pattern);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_PATTERN_TRANSLATION_H_
