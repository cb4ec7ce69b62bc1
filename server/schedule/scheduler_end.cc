// How runs end: deadlines, cancellations, and giving their memory back.
#include <algorithm>
#include <utility>

#include "server/schedule/scheduler.h"

namespace qk {

void Scheduler::Sweep() {
  const absl::Time now = clock_->Now();
  std::vector<std::pair<std::shared_ptr<ScheduledRequest>, bool>> late;
  if (next_deadline_ <= now) {
    std::lock_guard<std::mutex> lock(mutex_);
    next_deadline_ = absl::InfiniteFuture();
    for (Entry& entry : entries_) {
      const absl::Time deadline = entry.request->deadline();
      if (deadline > now) {
        next_deadline_ = std::min(next_deadline_.load(), deadline);
      } else if (!entry.gone) {
        late.emplace_back(entry.request, entry.active > 0);
      }
    }
  }
  for (const auto& [request, active] : late) {
    request->Cancel(absl::DeadlineExceededError(
        active ? "deadline exceeded" : "deadline exceeded before execution"));
  }
  const uint64_t cancellations = cancellations_;
  if (cancellations == seen_cancellations_) return;
  seen_cancellations_ = cancellations;
  EndCancelled();
}

void Scheduler::DropWaiting(ScheduledRequest* request) {
  std::deque<ScheduledRun> gone;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = by_request_.find(request);
    if (it == by_request_.end()) return;
    Entry* entry = it->second;
    gone.swap(entry->waiting);
    if (!gone.empty() && !entry->reserving) {
      std::deque<Entry*>& queue = queues_[entry->flow];
      queue.erase(std::find(queue.begin(), queue.end(), entry));
    }
    if (entry->active == 0 && !entry->reserving) LeaveCounts(entry);
    MayBeEmpty(entry);
  }
  for (ScheduledRun& run : gone) {
    run.run->FinishCancelled();
    std::lock_guard<std::mutex> lock(request->mutex_);
    std::erase(request->runs_, run.run.get());
  }
  // The thread ends what is active, and forgets the entry.
  std::lock_guard<std::mutex> lock(mutex_);
  ++cancellations_;
  TellPositions();
  changed_.notify_all();
}

void Scheduler::OnGone(ScheduledRequest* request) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = known_.find(request);
  if (it == known_.end()) return;
  --it->second.account->in_flight;
  known_.erase(it);
}

void Scheduler::EndCancelled() {
  // Flags are only ever set: what is cancelled here, the passes drop, too.
  std::vector<Active*> cancelled;
  for (auto& active : active_) {
    if (active->scheduled.run->cancelled()) cancelled.push_back(active.get());
  }
  for (LivePass& live : passes_) {
    live.pass->DropCancelled();
    std::erase_if(live.plan.parts, [&](const PassPlan::Part& part) {
      return std::find(cancelled.begin(), cancelled.end(), part.active) !=
             cancelled.end();
    });
  }
  for (Active* active : cancelled) {
    active->in_pass = false;
    active->scheduled.run->FinishCancelled();
  }
  DropFinished();
}

void Scheduler::DropFinished() {
  std::vector<std::unique_ptr<Active>> kept;
  std::vector<std::unique_ptr<Active>> done;
  for (auto& active : active_) {
    const bool finished = active->scheduled.run->finished() && !active->in_pass;
    (finished ? done : kept).push_back(std::move(active));
  }
  active_ = std::move(kept);
  for (auto& active : done) {
    Forget(std::move(active->scheduled), active->entry);
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& active : done) {
      Entry* entry = active->entry;
      if (--entry->active == 0 && !entry->reserving) SetWaiting(entry, true);
      MayBeEmpty(entry);
    }
    EraseEmptyEntries();
    TellPositions();
  }
  let_go_.clear();
}

// Ends a run's life: nobody may cancel it any more, then its memory goes.
void Scheduler::Forget(ScheduledRun scheduled, Entry* entry) {
  ++runs_ended_;
  if (!scheduled.run->finished()) scheduled.run->FinishCancelled();
  ScheduledRequest& request = *entry->request;
  std::lock_guard<std::mutex> lock(request.mutex_);
  std::erase(request.runs_, scheduled.run.get());
}

}  // namespace qk
