// How the scheduler chooses what goes into the next pass.
#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "server/scheduler.h"

namespace qk {

// Of the models that runs wait for, the one served longest ago.
const Model* Scheduler::ChooseModel() {
  std::vector<const Model*> wanted;
  for (auto& active : active_) {
    wanted.push_back(active->scheduled.run->next_model());
  }
  for (Entry* entry : Entries()) {
    if (Run* run = Front(entry)) wanted.push_back(run->next_model());
  }
  std::map<const Model*, uint64_t> served;
  const Model* chosen = nullptr;
  for (const Model* model : wanted) {
    if (model == nullptr || served.contains(model)) continue;
    const auto last = last_served_.find(model);
    served[model] = last == last_served_.end() ? 0 : last->second;
    if (chosen == nullptr || served[model] < served[chosen]) chosen = model;
  }
  last_served_ = std::move(served);  // forgets models that nobody wants
  return chosen;
}

Scheduler::PassPlan Scheduler::MakePlan(const Model* model) {
  PassPlan plan;
  plan.model = model;
  for (auto& active : active_) AddSequences(active.get(), &plan);
  const std::vector<Entry*> entries = Entries();
  bool out_of_memory = false;
  bool progress = true;
  while (progress) {
    progress = false;
    for (Entry* entry : entries) {
      if (plan.rows >= options_.max_rows_per_pass || out_of_memory) break;
      progress |= TryAdmit(entry, model, &plan, &out_of_memory);
    }
  }
  std::lock_guard<std::mutex> lock(mutex_);
  EraseEmptyEntries();
  TellPositions();
  return plan;
}

// Gives the entry's next run its memory and puts its sequences into the plan.
bool Scheduler::TryAdmit(Entry* entry, const Model* model, PassPlan* plan,
                         bool* out_of_memory) {
  Run* next = Front(entry);
  if (next == nullptr || next->cancelled() || next->next_model() != model) {
    return false;
  }
  ScheduledRun run;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    run = std::move(entry->waiting.front());
    entry->waiting.pop_front();
    entry->reserving = true;
  }
  const absl::Status status = run.run->Reserve();
  const bool later = absl::IsResourceExhausted(status) && !active_.empty();
  if (!status.ok() && !later) {
    run.run->Cancel(absl::ResourceExhaustedError(status.message()));
    Forget(std::move(run), entry);
  }
  std::unique_lock<std::mutex> lock(mutex_);
  entry->reserving = false;
  if (later) {
    entry->waiting.push_front(std::move(run));
    *out_of_memory = true;
    return false;
  }
  if (!status.ok()) return true;
  ++entry->active;
  lock.unlock();
  {
    std::lock_guard<std::mutex> request_lock(entry->request->mutex_);
    entry->request->started_ = std::min(entry->request->started_, absl::Now());
  }
  active_.push_back(std::make_unique<Active>());
  active_.back()->entry = entry;
  active_.back()->scheduled = std::move(run);
  AddSequences(active_.back().get(), plan);
  return true;
}

// What fits of the run's sequences; the first of a pass always does.
void Scheduler::AddSequences(Active* active, PassPlan* plan) {
  Run& run = *active->scheduled.run;
  if (run.cancelled() || run.finished()) return;
  std::vector<Sequence*> ready;
  run.AppendReady(plan->model, &ready);
  PassPlan::Part part = {active, plan->sequences.size(), 0, 0};
  for (Sequence* sequence : ready) {
    const int rows = device_->Rows(*sequence);
    if (!plan->sequences.empty() &&
        rows > options_.max_rows_per_pass - plan->rows) {
      continue;
    }
    plan->sequences.push_back(sequence);
    plan->rows += rows;
    part.rows += rows;
  }
  part.end = plan->sequences.size();
  if (part.begin == part.end) return;
  active->in_pass = true;
  plan->parts.push_back(part);
}

}  // namespace qk
