// Finds where a text stops being JSON; simdjson says only that it does.
#ifndef QKSCOPE_ENGINE_FORMATS_JSON_SYNTAX_H_
#define QKSCOPE_ENGINE_FORMATS_JSON_SYNTAX_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace qk {

// Returns the offset of the first byte that cannot belong to a JSON text, the
// size of `text` if it ends too early, or nullopt if the syntax is right.
std::optional<int64_t> FindJsonSyntaxError(absl::string_view text);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_JSON_SYNTAX_H_
