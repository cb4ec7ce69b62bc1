// The reasons why a call ends before its work is done. They travel in the
// status until the call ends, where they are counted once.
#ifndef QKSCOPE_SERVER_COMMON_CANCEL_REASON_H_
#define QKSCOPE_SERVER_COMMON_CANCEL_REASON_H_

#include <optional>

#include "absl/status/status.h"

namespace qk {

enum class CancelReason {
  kClient,  // its client, or the RPC Cancel
  kDeadline,
  kStalled,  // its client read nothing for too long
  kShutdown,
};

// Returns `status`, an error, with the reason.
absl::Status WithCancelReason(CancelReason reason, absl::Status status);
// Without a reason, CANCELLED means kClient and DEADLINE_EXCEEDED kDeadline.
// nullopt: the call was not cancelled.
std::optional<CancelReason> CancelReasonOf(const absl::Status& status);

const char* CancelReasonName(CancelReason reason);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_CANCEL_REASON_H_
