#include "server/schedule/active_runs.h"

#include <algorithm>
#include <utility>

namespace qk {
namespace {

// Destroys a run. First removes it from its request, so that nobody can cancel
// it any more.
void Free(ScheduledRequest* request, ScheduledRun scheduled) {
  if (!scheduled.run->finished()) scheduled.run->FinishCancelled();
  request->RemoveRun(scheduled.run.get());
}

}  // namespace

ActiveRun* ActiveRuns::Admit(QueuedRun queued) {
  Run& run = *queued.scheduled.run;
  const Model* model = run.next_model();
  const absl::Status status = run.Reserve();
  if (absl::IsResourceExhausted(status) && !runs_.empty()) {
    if (queued.scheduled.room != nullptr) queued.scheduled.room->GiveRoomBack();
    if (queue_->PutBack(&queued, model)) return nullptr;
  }
  if (!status.ok()) {
    run.Cancel(status);
    Free(queued.request, std::move(queued.scheduled));
    queue_->Refuse(queued, model);
    return nullptr;
  }
  queue_->Admit(queued, model);
  queued.request->MarkStarted(clock_->Now());
  runs_.push_back(std::make_unique<ActiveRun>());
  runs_.back()->origin = std::move(queued);
  return runs_.back().get();
}

void ActiveRuns::EndCancelled() {
  queue_->CancelOverdue();
  if (!queue_->TakeCancelled()) return;
  // Cancellation flags are never cleared, so DropCancelled drops at least the
  // runs that are found here.
  std::vector<ActiveRun*> cancelled;
  for (const auto& active : runs_) {
    if (active->run().cancelled()) cancelled.push_back(active.get());
  }
  for (LivePass& live : passes_) {
    live.pass->DropCancelled();
    std::erase_if(live.plan.parts, [&](const PassPlan::Part& part) {
      return std::find(cancelled.begin(), cancelled.end(), part.active) !=
             cancelled.end();
    });
  }
  for (ActiveRun* active : cancelled) {
    active->in_pass = false;
    active->run().FinishCancelled();
  }
  DropFinished();
}

void ActiveRuns::DropFinished() {
  std::vector<std::unique_ptr<ActiveRun>> kept;
  std::vector<RequestQueue::EndedRun> ended;
  for (auto& active : std::exchange(runs_, {})) {
    if (!active->run().finished() || active->in_pass) {
      kept.push_back(std::move(active));
      continue;
    }
    ended.push_back(
        {active->origin.queued, active->origin.scheduled.memory_bytes});
    Free(active->origin.request, std::move(active->origin.scheduled));
  }
  runs_ = std::move(kept);
  queue_->EndRuns(ended);
}

}  // namespace qk
