#include "engine/formats/text_file.h"

#include <unistd.h>

#include <cstdint>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/small_file.h"
#include "engine/formats/excerpt.h"
#include "engine/formats/mapped_file.h"

namespace qk {

absl::StatusOr<std::string> ReadModelText(const std::string& path) {
  const std::string name = FileNameOf(path);
  QK_ASSIGN_OR_RETURN(const int fd, OpenRegularFile(path));
  const absl::Cleanup close_fd = [fd] { close(fd); };
  SmallFileOptions options;
  options.max_bytes = int64_t{256} << 20;
  absl::StatusOr<std::string> text = ReadDescriptor(fd, options);
  if (!text.ok()) {
    return absl::Status(
        text.status().code(),
        absl::StrCat(name, ": cannot be read: ", text.status().message()));
  }
  if (text->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": empty file"));
  }
  QK_RETURN_IF_ERROR(CheckNotLfsPointer(name, *text));
  return text;
}

}  // namespace qk
