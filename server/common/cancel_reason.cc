#include "server/common/cancel_reason.h"

#include "absl/strings/cord.h"

namespace qk {
namespace {

constexpr char kUrl[] = "qkscope/cancel_reason";

}  // namespace

absl::Status WithCancelReason(CancelReason reason, absl::Status status) {
  status.SetPayload(kUrl, absl::Cord(CancelReasonName(reason)));
  return status;
}

std::optional<CancelReason> CancelReasonOf(const absl::Status& status) {
  if (const auto payload = status.GetPayload(kUrl)) {
    for (int i = 0; i <= static_cast<int>(CancelReason::kShutdown); ++i) {
      const CancelReason reason = static_cast<CancelReason>(i);
      if (*payload == CancelReasonName(reason)) return reason;
    }
  }
  if (absl::IsCancelled(status)) return CancelReason::kClient;
  if (absl::IsDeadlineExceeded(status)) return CancelReason::kDeadline;
  return std::nullopt;
}

const char* CancelReasonName(CancelReason reason) {
  switch (reason) {
    case CancelReason::kClient:
      return "client";
    case CancelReason::kDeadline:
      return "deadline";
    case CancelReason::kStalled:
      return "stalled";
    case CancelReason::kShutdown:
      return "shutdown";
  }
  return "other";
}

}  // namespace qk
