// Why a request was turned away before it ran, kept with its status until the
// call ends: counted there, once, and told to the client with a time to retry.
#ifndef QKSCOPE_SERVER_COMMON_REFUSAL_H_
#define QKSCOPE_SERVER_COMMON_REFUSAL_H_

#include <optional>

#include "absl/status/status.h"

namespace qk {

enum class Refusal {
  kQueueFull,
  kStreamBuffers,
  kMemory,     // none is free
  kNeverFits,  // nor would there be
  kResponseSize,
  kDraining,
  kModelState,
  kUserBudget,
};

// `status` with its reason, and RetryInfo where waiting helps.
absl::Status Refused(Refusal reason, const absl::Status& status);
std::optional<Refusal> RefusalOf(const absl::Status& status);

const char* RefusalName(Refusal reason);

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_REFUSAL_H_
