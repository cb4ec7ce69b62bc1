#include "server/common/refusal.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/time/time.h"
#include "server/common/retry_after.h"

namespace qk {
namespace {

constexpr char kUrl[] = "qkscope/refusal";
constexpr absl::Duration kRetry = absl::Seconds(1);

}  // namespace

absl::Status Refused(Refusal reason, const absl::Status& status) {
  const bool waiting_helps = reason == Refusal::kQueueFull ||
                             reason == Refusal::kStreamBuffers ||
                             reason == Refusal::kMemory;
  return Refused(reason, status,
                 waiting_helps ? kRetry : absl::InfiniteDuration());
}

absl::Status Refused(Refusal reason, const absl::Status& status,
                     absl::Duration retry) {
  absl::Status out =
      retry < absl::InfiniteDuration() ? WithRetryAfter(status, retry) : status;
  out.SetPayload(kUrl, absl::Cord(RefusalName(reason)));
  return out;
}

std::optional<Refusal> RefusalOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kUrl);
  if (!payload.has_value()) return std::nullopt;
  for (int i = 0; i <= static_cast<int>(Refusal::kUserBudget); ++i) {
    const Refusal reason = static_cast<Refusal>(i);
    if (*payload == RefusalName(reason)) return reason;
  }
  return std::nullopt;
}

const char* RefusalName(Refusal reason) {
  switch (reason) {
    case Refusal::kQueueFull:
      return "queue_full";
    case Refusal::kStreamBuffers:
      return "stream_buffers";
    case Refusal::kMemory:
    case Refusal::kNeverFits:
      return "memory";
    case Refusal::kResponseSize:
      return "response_size";
    case Refusal::kDraining:
      return "draining";
    case Refusal::kModelState:
      return "model_state";
    case Refusal::kKeptResults:
      return "kept_results";
    case Refusal::kUserBudget:
      return "user_budget";
  }
  return "other";
}

}  // namespace qk
