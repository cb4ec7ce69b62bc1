// When a call that failed is worth making again.
#ifndef QKSCOPE_CLIENT_CPP_RETRY_H_
#define QKSCOPE_CLIENT_CPP_RETRY_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/analysis_client.h"
#include "client/cpp/cancellation.h"

namespace qk::client {

// How long to wait before the call is made again; nullopt: that would not help.
// `attempt` counts from 0. Twice as long each time, at least what the server
// asked for, and spread, so that many clients do not come back at once.
std::optional<absl::Duration> RetryDelay(const absl::Status& status,
                                         int attempt);

// False: the caller cancelled meanwhile.
bool Wait(absl::Duration delay, Cancellation* cancellation);

// The server's RetryInfo goes with the status.
void SetRetryDelay(absl::Duration delay, absl::Status* status);
// For a call that must not be made again as it is.
void ForgetRetryDelay(absl::Status* status);

// Calls `attempt` until it succeeds or trying again would not help.
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
