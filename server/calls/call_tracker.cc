#include "server/calls/call_tracker.h"

#include <utility>

#include "engine/base/monotonic.h"
#include "server/common/guarded.h"
#include "server/common/refusal.h"

namespace qk {

CallTracker::CallTracker(absl::Duration tick) : tick_(tick) {
  thread_ = std::thread([this] { Loop(); });
}

CallTracker::~CallTracker() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

absl::Status CallTracker::CheckOpen() const {
  if (!draining_) return absl::OkStatus();
  return Refused(Refusal::kDraining,
                 absl::UnavailableError("server is shutting down"));
}

void CallTracker::Register(std::weak_ptr<LiveCall> call) {
  MutexLock lock(&mutex_);
  calls_.push_back(std::move(call));
}

void CallTracker::CallStarted() {
  MutexLock lock(&mutex_);
  ++active_;
}

void CallTracker::CallEnded() {
  MutexLock lock(&mutex_);
  if (--active_ == 0) changed_.NotifyAll();
}

bool CallTracker::WaitUntilIdle(absl::Time deadline) {
  MutexLock lock(&mutex_);
  return changed_.WaitUntil(
      &mutex_, deadline,
      [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return active_ == 0; });
}

void CallTracker::AbortAll(const absl::Status& reason) {
  for (const auto& call : Alive()) call->Abort(reason);
}

std::vector<std::shared_ptr<LiveCall>> CallTracker::Alive() {
  std::vector<std::shared_ptr<LiveCall>> alive;
  MutexLock lock(&mutex_);
  std::erase_if(calls_, [&](const std::weak_ptr<LiveCall>& weak) {
    auto call = weak.lock();
    if (call == nullptr) return true;
    alive.push_back(std::move(call));
    return false;
  });
  return alive;
}

void CallTracker::Loop() {
  for (;;) {
    {
      MutexLock lock(&mutex_);
      const bool stopping = changed_.WaitFor(
          &mutex_, tick_,
          [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; });
      if (stopping) return;
    }
    const absl::Time now = MonotonicNow();
    // A call whose look fails must not keep the others from theirs.
    Guarded("tick", [&] {
      for (const auto& call : Alive()) {
        const absl::Status thrown = Guarded("tick", [&] { call->Tick(now); });
        if (!thrown.ok()) call->Abort(thrown);
      }
    }).IgnoreError();
  }
}

}  // namespace qk
