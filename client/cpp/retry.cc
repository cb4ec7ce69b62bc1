#include "client/cpp/retry.h"

#include <algorithm>
#include <string>

#include "absl/random/random.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/base/monotonic.h"

namespace qk::client {
namespace {

constexpr char kDelayUrl[] = "qkscope/retry_delay_ns";
constexpr absl::Duration kFirstBackoff = absl::Milliseconds(200);
constexpr absl::Duration kLongestBackoff = absl::Seconds(30);

}  // namespace

void SetRetryDelay(absl::Duration delay, absl::Status* status) {
  status->SetPayload(kDelayUrl,
                     absl::Cord(absl::StrCat(absl::ToInt64Nanoseconds(delay))));
}

std::optional<absl::Duration> RetryDelay(const absl::Status& status,
                                         int attempt) {
  const auto asked = status.GetPayload(kDelayUrl);
  if (!absl::IsUnavailable(status) && !asked.has_value()) return std::nullopt;
  absl::Duration delay = kFirstBackoff * (1 << std::min(attempt, 10));
  int64_t nanos = 0;
  if (asked.has_value() && absl::SimpleAtoi(std::string(*asked), &nanos)) {
    delay = std::max(delay, absl::Nanoseconds(nanos));
  }
  absl::BitGen random;
  return std::min(delay, kLongestBackoff) * absl::Uniform(random, 1.0, 1.5);
}

void RemoveRetryDelay(absl::Status* status) { status->ErasePayload(kDelayUrl); }

bool Wait(absl::Duration delay, Cancellation* cancellation) {
  constexpr absl::Duration kPollInterval = absl::Milliseconds(50);
  const absl::Time end = MonotonicNow() + delay;
  while (MonotonicNow() < end) {
    if (cancellation != nullptr && cancellation->cancelled()) return false;
    absl::SleepFor(std::min(kPollInterval, end - MonotonicNow()));
  }
  return true;
}

}  // namespace qk::client
