// How runs end: deadlines, cancellations, and giving their memory back.
#include <algorithm>
#include <utility>

#include "server/scheduler.h"

namespace qk {

void Scheduler::Sweep() {
  const absl::Time now = clock_->Now();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (next_deadline_ <= now) {
      next_deadline_ = absl::InfiniteFuture();
      for (Entry& entry : entries_) {
        const absl::Time deadline = entry.request->deadline();
        if (deadline > now) {
          next_deadline_ = std::min(next_deadline_, deadline);
        } else {
          entry.request->Cancel(absl::DeadlineExceededError(
              entry.active > 0 ? "deadline exceeded"
                               : "deadline exceeded before execution"));
        }
      }
    }
  }
  const uint64_t cancellations = *cancellations_;
  if (cancellations == seen_cancellations_) return;
  seen_cancellations_ = cancellations;
  EndCancelled();
}

void Scheduler::EndCancelled() {
  std::vector<std::pair<Entry*, ScheduledRun>> gone;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (Entry& entry : entries_) {
      if (entry.waiting.empty() || entry.request->cancelled().ok()) continue;
      for (ScheduledRun& run : entry.waiting) {
        gone.emplace_back(&entry, std::move(run));
      }
      entry.waiting.clear();
      std::deque<Entry*>& queue = queues_[entry.flow];
      queue.erase(std::find(queue.begin(), queue.end(), &entry));
    }
  }
  for (auto& [entry, run] : gone) Forget(std::move(run), entry);
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
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& active : done) {
    Entry* entry = active->entry;
    if (--entry->active == 0 && !entry->reserving) SetWaiting(entry, true);
  }
  EraseEmptyEntries();
  TellPositions();
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
