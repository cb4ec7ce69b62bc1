#include "server/common/text_file.h"

#include "absl/strings/str_cat.h"
#include "engine/base/small_file.h"

namespace qk {

absl::StatusOr<std::string> ReadTextFile(absl::string_view key,
                                         const std::string& path,
                                         mode_t* mode) {
  absl::StatusOr<std::string> text = ReadSmallFile(path, {}, mode);
  if (text.ok()) return text;
  return absl::Status(text.status().code(),
                      absl::StrCat(key, ": ", text.status().message()));
}

}  // namespace qk
