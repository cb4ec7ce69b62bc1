#include "server/calls/stream_call.h"

#include <optional>

#include "server/calls/call_record.h"
#include "server/calls/prepared_run.h"
#include "server/common/delay_point.h"
#include "server/common/guarded.h"
#include "server/common/refusal.h"

namespace qk {

void StreamCall::Tick(absl::Time now) {
  const absl::Duration stall =
      absl::Milliseconds(call_parts_->limits->write_stall_timeout_ms);
  std::optional<WriteWatch::Verdict> verdict;
  {
    MutexLock lock(&mutex_);
    verdict = watch_.Check(now, stall, deadline_);
  }
  // The scheduler checks deadlines only between steps, and a step may be long.
  if (!verdict.has_value() && now > deadline_) {
    verdict = {CancelReason::kDeadline, "deadline exceeded"};
  }
  if (!verdict.has_value()) return;
  const absl::Status reason = WithCancelReason(
      verdict->reason, absl::DeadlineExceededError(verdict->message));
  if (!End(reason)) {
    CutIfStuck(now, stall);
    return;
  }
  {
    MutexLock lock(&mutex_);
    watch_.CancelCall(context_, reason);
  }
  Pump();
}

void StreamCall::CutIfStuck(absl::Time now, absl::Duration patience) {
  MutexLock lock(&mutex_);
  if (watch_.writing() &&
      stuck_.ShutDownIfStuck(*call_parts_->connections, now, patience)) {
    call_parts_->log->Warn("connection_cut",
                           {{"reason", "the peer reads nothing"}});
  }
}

void StreamCall::Abort(const absl::Status& reason) {
  if (End(reason)) {
    // The client may have stopped reading.
    MutexLock lock(&mutex_);
    watch_.CancelCall(context_, reason);
  }
  Pump();
}

void StreamCall::Refuse(const absl::Status& reason) {
  End(reason);
  Pump();
}

void StreamCall::EndCancelledBy(const absl::Status& why) {
  // A refusal says when to try again, which only a regular end carries.
  const absl::Status reason = ToClientStatus(why);
  RefusalOf(reason).has_value() ? Refuse(reason) : Abort(reason);
}

void StreamCall::EndCancelled() {
  const absl::Status thrown = Guarded("cancel", [&] {
    DelayPoint("cancel");
    End(CancelledReason(*context_));
    Pump();
  });
  if (!thrown.ok()) EndThrown(thrown, /*write=*/false);
}

void StreamCall::EndThrown(const absl::Status& thrown, bool write) {
  if (write) {
    MutexLock lock(&mutex_);
    watch_.End();
  }
  End(thrown);
  Pump();
}

}  // namespace qk
