// The form of all errors that name a field.
#ifndef QKSCOPE_SERVER_COMMON_BAD_FIELD_H_
#define QKSCOPE_SERVER_COMMON_BAD_FIELD_H_

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace qk {

// INVALID_ARGUMENT "field: problem".
inline absl::Status BadField(absl::string_view field,
                             absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", problem));
}

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_BAD_FIELD_H_
