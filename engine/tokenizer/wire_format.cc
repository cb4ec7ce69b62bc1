#include "engine/tokenizer/wire_format.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace qk {

absl::Status WireReader::Error(absl::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " at byte ", size_ - message_.size()));
}

absl::StatusOr<uint64_t> WireReader::ReadVarint() {
  uint64_t value = 0;
  for (size_t i = 0; i < 10; ++i) {
    if (i == message_.size()) return Error("it ends inside a number");
    const auto byte = static_cast<unsigned char>(message_[i]);
    if (i == 9 && byte > 1) break;
    value |= uint64_t{byte & 0x7fu} << (7 * i);
    if (byte < 0x80) {
      message_.remove_prefix(i + 1);
      return value;
    }
  }
  return Error("number over 64 bits");
}

absl::StatusOr<uint64_t> WireReader::ReadFixed(size_t bytes) {
  if (message_.size() < bytes) return Error("it ends inside a number");
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= uint64_t{static_cast<unsigned char>(message_[i])} << (8 * i);
  }
  message_.remove_prefix(bytes);
  return value;
}

absl::StatusOr<WireField> WireReader::Next() {
  QK_ASSIGN_OR_RETURN(const uint64_t tag, ReadVarint());
  const uint64_t number = tag >> 3;
  if (number == 0 || number >= uint64_t{1} << 29) {
    return Error(absl::StrCat("bad field number ", number));
  }
  WireField field{static_cast<uint32_t>(number), static_cast<WireType>(tag & 7),
                  0, ""};
  switch (field.type) {
    case WireType::kVarint: {
      QK_ASSIGN_OR_RETURN(field.value, ReadVarint());
      return field;
    }
    case WireType::kFixed64: {
      QK_ASSIGN_OR_RETURN(field.value, ReadFixed(8));
      return field;
    }
    case WireType::kFixed32: {
      QK_ASSIGN_OR_RETURN(field.value, ReadFixed(4));
      return field;
    }
    case WireType::kBytes: {
      QK_ASSIGN_OR_RETURN(const uint64_t size, ReadVarint());
      if (size > message_.size()) {
        return Error(absl::StrCat("field ", number, " has ", size,
                                  " bytes, there are ", message_.size()));
      }
      field.bytes = message_.substr(0, size);
      message_.remove_prefix(size);
      return field;
    }
  }
  return Error(absl::StrCat("unknown wire type ", tag & 7));
}

}  // namespace qk
