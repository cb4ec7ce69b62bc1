#include "server/calls/stream_call.h"

#include "server/calls/call_record.h"
#include "server/common/delay_point.h"

namespace qk {

void StreamCall::Tick(absl::Time now) {
  const absl::Duration stall =
      absl::Milliseconds(core_->limits.write_stall_timeout_ms);
  std::unique_lock<std::mutex> lock(mutex_);
  auto verdict = watch_.Check(now, stall, deadline_);
  // The scheduler sees to deadlines between two steps, however long they are.
  if (!verdict.has_value() && now > deadline_) {
    verdict = {CancelReason::kDeadline, "deadline exceeded"};
  }
  if (!verdict.has_value()) return;
  lock.unlock();
  const absl::Status reason = absl::DeadlineExceededError(verdict->message);
  if (!End(reason)) {
    CutIfStuck(now, stall);
    return;
  }
  core_->metrics->CountCancelled(verdict->reason);
  lock.lock();
  watch_.CancelCall(context_, reason);
  lock.unlock();
  Pump();
}

void StreamCall::CutIfStuck(absl::Time now, absl::Duration patience) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (watch_.writing() &&
      stuck_.ShutDownIfStuck(*core_->connections, now, patience)) {
    core_->log->Warn("connection_cut", {{"reason", "its peer takes nothing"}});
  }
}

void StreamCall::Abort(const absl::Status& reason) {
  if (End(reason)) {
    // The reader may stand still.
    std::lock_guard<std::mutex> lock(mutex_);
    watch_.CancelCall(context_, reason);
  }
  Pump();
}

void StreamCall::EndCancelled() {
  DelayPoint("cancel");
  const absl::Status reason = CancelledReason(*context_);
  if (End(reason)) core_->metrics->CountCancelled(CancelReasonOf(reason));
  Pump();
}

}  // namespace qk
