// Decides when to retry a failed call.
#ifndef QKSCOPE_CLIENT_CPP_RETRY_H_
#define QKSCOPE_CLIENT_CPP_RETRY_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/analysis_client.h"
#include "client/cpp/cancellation.h"

namespace qk::client {

// The time to wait before the retry, or nullopt if a retry would not help.
// `attempt` counts from 0. The delay doubles each time, is at least what the
// server asked for, and is randomised so that many clients do not return at
// once.
std::optional<absl::Duration> RetryDelay(const absl::Status& status,
                                         int attempt);

// Returns false if the caller cancels during the wait.
bool Wait(absl::Duration delay, Cancellation* cancellation);

// Attaches the server's retry delay to the status.
void SetRetryDelay(absl::Duration delay, absl::Status* status);
// Removes the delay, if the call must not be repeated as it is.
void RemoveRetryDelay(absl::Status* status);

// Calls `attempt` until it succeeds, the retries are used up, or a retry would
// not help.
template <typename Attempt>
auto WithRetries(const CallOptions& options, const Attempt& attempt)
    -> decltype(attempt()) {
  for (int i = 0;; ++i) {
    auto result = attempt();
    if (result.ok() || i >= options.retries) return result;
    const auto delay = RetryDelay(result.status(), i);
    if (!delay.has_value() || !Wait(*delay, options.cancellation)) {
      return result;
    }
  }
}

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_RETRY_H_
