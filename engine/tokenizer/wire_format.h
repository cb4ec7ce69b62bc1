// A strict reader of protobuf's wire format, for bytes we do not trust.
// https://protobuf.dev/programming-guides/encoding
#ifndef QKSCOPE_ENGINE_TOKENIZER_WIRE_FORMAT_H_
#define QKSCOPE_ENGINE_TOKENIZER_WIRE_FORMAT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk {

enum class WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct WireField {
  uint32_t number;
  WireType type;
  uint64_t value;           // for kVarint, kFixed64 and kFixed32
  absl::string_view bytes;  // for kBytes; a view into the message
};

// Reads the fields of one message, one after another. Groups are refused.
class WireReader {
 public:
  explicit WireReader(absl::string_view message)
      : message_(message), size_(message.size()) {}

  bool done() const { return message_.empty(); }
  // Returns the next field; do not call it when done. Errors are messages that
  // name the byte of the message, for the caller to wrap.
  absl::StatusOr<WireField> Next();

 private:
  absl::StatusOr<uint64_t> ReadVarint();
  absl::StatusOr<uint64_t> ReadFixed(size_t bytes);
  absl::Status Error(absl::string_view what) const;

  absl::string_view message_;  // what is left of the message
  size_t size_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TOKENIZER_WIRE_FORMAT_H_
