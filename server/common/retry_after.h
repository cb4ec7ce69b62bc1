// The delay before a retry that an error carries; clients get it as
// google.rpc.RetryInfo.
#ifndef QKSCOPE_SERVER_COMMON_RETRY_AFTER_H_
#define QKSCOPE_SERVER_COMMON_RETRY_AFTER_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace qk {

// The payload's type, a serialised RetryInfo.
inline constexpr char kRetryInfoUrl[] =
    "type.googleapis.com/google.rpc.RetryInfo";

// Attaches the delay, which must be finite, in place of one that is there.
absl::Status WithRetryAfter(absl::Status status, absl::Duration delay);
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_RETRY_AFTER_H_
