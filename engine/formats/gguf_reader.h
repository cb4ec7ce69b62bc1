// A ByteReader whose errors name the file and the offset.
#ifndef QKSCOPE_ENGINE_FORMATS_GGUF_READER_H_
#define QKSCOPE_ENGINE_FORMATS_GGUF_READER_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/formats/byte_reader.h"

namespace qk {

class GgufReader : public ByteReader {
 public:
  // `name`, the file's name, must outlive the reader.
  GgufReader(absl::string_view name, absl::Span<const uint8_t> file)
      : ByteReader(file), name_(name) {}

  absl::string_view name() const { return name_; }

  absl::Status Fail(absl::string_view message) const {
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": ", message, " (offset ", position(), ")"));
  }

  // `where` starts the error, for example "key #3" or "kv 'x'".
  absl::StatusOr<absl::string_view> ReadString(absl::string_view where) {
    const auto length = Read<uint64_t>();
    if (!length) return Fail(absl::StrCat(where, ": file ends in a string"));
    const auto text = ReadText(*length);
    if (!text) {
      return Fail(absl::StrCat(where, ": string of ", *length,
                               " bytes goes past end (", left(), " left)"));
    }
    return *text;
  }

 private:
  absl::string_view name_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_FORMATS_GGUF_READER_H_
