// Text for error messages: escaped echoes, sizes, and no paths.
#ifndef QKSCOPE_SERVER_COMMON_TEXT_H_
#define QKSCOPE_SERVER_COMMON_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace qk {

// `text` with everything but printable ASCII escaped, at most 64 bytes of it;
// longer text ends in "...".
std::string Echo(absl::string_view text);

// A library's message: what is not printable ASCII is escaped, at most 200
// bytes of it; a longer one ends in "...".
std::string Printable(absl::string_view message);

// 64 hex digits of either case.
bool IsSha256(absl::string_view text);

// "512 B", "1.5 MiB", "9.1 GiB".
std::string HumanBytes(int64_t bytes);

// Absolute paths shortened to their last part: where a server keeps its files
// is no business of its clients.
std::string StripPaths(absl::string_view text);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_TEXT_H_
