// Text for error messages: escaped input, sizes, and no paths.
#ifndef QKSCOPE_SERVER_COMMON_TEXT_H_
#define QKSCOPE_SERVER_COMMON_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace qk {

// Escapes everything but printable ASCII in `text`. Text over 64 bytes is cut
// off and ends in "...".
std::string Echo(absl::string_view text);

// As Echo, for a library's message; the limit is 200 bytes, and backslashes and
// quotes stay as they are.
std::string Printable(absl::string_view message);

// Whether `text` is 64 hex digits of either case.
bool IsSha256(absl::string_view text);

// "512 B", "1.5 MiB", "9.1 GiB".
std::string HumanBytes(int64_t bytes);

// Shortens absolute paths to their last component, so that clients do not learn
// where a server keeps its files.
std::string StripPaths(absl::string_view text);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_TEXT_H_
