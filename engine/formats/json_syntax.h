// Finds where a text stops being JSON; simdjson says only that it does.
#ifndef QKSCOPE_ENGINE_FORMATS_JSON_SYNTAX_H_
#define QKSCOPE_ENGINE_FORMATS_JSON_SYNTAX_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/formats/json.h"

namespace qk {

// Returns the offset of the first byte that cannot belong to a JSON text, the
// size of `text` if it ends too early, or nullopt if the syntax is right.
std::optional<int64_t> FindJsonSyntaxError(
    absl::string_view text, JsonNumbers numbers = JsonNumbers::kStrict);

// Returns `text`, whose syntax must be right, with every number that simdjson
// does not accept written as a string: `mark`, which must need no escape, and
// then the number. Sets `count` to the number of such numbers.
std::string QuotePythonNumbers(absl::string_view text, absl::string_view mark,
                               int64_t* count);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_JSON_SYNTAX_H_
