#include "server/calls/call_tracker.h"

#include <utility>

#include "absl/time/clock.h"
#include "server/common/refusal.h"

namespace qk {

CallTracker::CallTracker(absl::Duration tick) : tick_(tick) {
  thread_ = std::thread([this] { Loop(); });
}

CallTracker::~CallTracker() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

absl::Status CallTracker::CheckOpen() const {
  if (!draining_) return absl::OkStatus();
  return Refused(Refusal::kDraining,
                 absl::UnavailableError("server is shutting down"));
}

void CallTracker::Register(std::weak_ptr<LiveCall> call) {
  std::lock_guard<std::mutex> lock(mutex_);
  calls_.push_back(std::move(call));
}

void CallTracker::CallStarted() {
  std::lock_guard<std::mutex> lock(mutex_);
  ++active_;
}

void CallTracker::CallEnded() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (--active_ == 0) changed_.notify_all();
}

bool CallTracker::WaitUntilIdle(absl::Time deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_until(lock, absl::ToChronoTime(deadline),
                             [this] { return active_ == 0; });
}

void CallTracker::AbortAll(const absl::Status& reason) {
  for (const auto& call : Alive()) call->Abort(reason);
}

std::vector<std::shared_ptr<LiveCall>> CallTracker::Alive() {
  std::vector<std::shared_ptr<LiveCall>> alive;
  std::lock_guard<std::mutex> lock(mutex_);
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
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait_for(lock, absl::ToChronoMilliseconds(tick_),
                        [this] { return stopping_; });
      if (stopping_) return;
    }
    const absl::Time now = absl::Now();
    for (const auto& call : Alive()) call->Tick(now);
  }
}

}  // namespace qk
