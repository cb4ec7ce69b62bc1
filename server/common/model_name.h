// Checks model names in configurations and requests.
#ifndef QKSCOPE_SERVER_COMMON_MODEL_NAME_H_
#define QKSCOPE_SERVER_COMMON_MODEL_NAME_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace qk {

// INVALID_ARGUMENT "FIELD: must not be empty" or "FIELD: invalid name (allowed
// [A-Za-z0-9._-]{1,128})".
absl::Status CheckModelName(absl::string_view field, absl::string_view name);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_MODEL_NAME_H_
