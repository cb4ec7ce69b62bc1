// The reason why a request was refused before it ran. It travels in the status
// until the call ends, where it is counted once; the client gets a retry delay.
#ifndef QKSCOPE_SERVER_COMMON_REFUSAL_H_
#define QKSCOPE_SERVER_COMMON_REFUSAL_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace qk {

enum class Refusal {
  kQueueFull,
  kStreamBuffers,
  kMemory,     // not enough memory is free now
  kNeverFits,  // the memory would never be enough
  kResponseSize,
  kDraining,
  kModelState,
  kKeptResults,  // the status already says when to try again
  kUserBudget,
};

// Returns `status` with the reason, and with RetryInfo if waiting helps.
absl::Status Refused(Refusal reason, const absl::Status& status);
// The same with a known delay. InfiniteDuration: waiting does not help.
absl::Status Refused(Refusal reason, const absl::Status& status,
                     absl::Duration retry);
std::optional<Refusal> RefusalOf(const absl::Status& status);

const char* RefusalName(Refusal reason);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_REFUSAL_H_
