// Reads the JSON and text files of a model.
#ifndef QKSCOPE_ENGINE_FORMATS_TEXT_FILE_H_
#define QKSCOPE_ENGINE_FORMATS_TEXT_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace qk {

// Returns the content of a file of at most 256 MiB. Unlike a mapped file, it
// cannot change or vanish afterwards. Errors are those of MappedFile::Open.
absl::StatusOr<std::string> ReadModelText(const std::string& path);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_TEXT_FILE_H_
