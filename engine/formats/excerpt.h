// Makes foreign bytes fit for an error message.
#ifndef QKSCOPE_ENGINE_FORMATS_EXCERPT_H_
#define QKSCOPE_ENGINE_FORMATS_EXCERPT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace qk {

// Returns the start of `text`, C-escaped to printable ASCII: at most 64 bytes,
// including the `...` that marks a cut.
std::string Excerpt(absl::string_view text);

// Returns the file name without its folders: an absolute path would tell
// strangers about the machine.
std::string FileNameOf(absl::string_view path);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_EXCERPT_H_
