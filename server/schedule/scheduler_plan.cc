// What runs next: the choice among flows, and what goes into a new pass.
#include <algorithm>
#include <utility>

#include "server/schedule/scheduler.h"

namespace qk {
namespace {

// Of a flow's queue, looked through for runs that still fit into a pass.
constexpr size_t kFronts = 64;
// Whose queue is longer wants a turn in any case.
constexpr size_t kFew = 8;
// Rows that cost little beside the reading of the weights.
constexpr int kFewRows = 32;
constexpr int kRowsBeforeMeasured = 64;

// A run's comparison, a tile for a layer.
class ComparisonPass : public DevicePass {
 public:
  explicit ComparisonPass(Run* run) : run_(run) {}
  void RunStep() override { run_->CompareTile(); }
  void DropCancelled() override {}
  bool done() const override { return !run_->comparing(); }
  absl::Status Finish() override { return absl::OkStatus(); }

 private:
  Run* const run_;
};

}  // namespace

int Scheduler::SliceRows() const {
  if (seconds_per_row_ <= 0) return kRowsBeforeMeasured;
  const double rows = absl::ToDoubleSeconds(options_.slice) / seconds_per_row_;
  return static_cast<int>(std::clamp<double>(
      rows, kFewRows, std::max(kFewRows, options_.max_rows_per_pass)));
}

double Scheduler::SecondsOf(const ScheduledRun& run) const {
  return static_cast<double>(run.prefill_rows) * seconds_per_row_;
}

Scheduler::Work Scheduler::FindWork(absl::Time* wake) {
  Work work;
  for (auto& active : active_) {
    const Run& run = *active->scheduled.run;
    if (run.finished() || run.cancelled()) continue;
    FlowWork& flow = work[active->entry->flow];
    flow.wanted +=
        std::max(0.0, SecondsOf(active->scheduled) - active->seconds);
    if (!active->in_pass) flow.idle.push_back(active.get());
  }
  for (LivePass& live : passes_) {
    for (const PassPlan::Part& part : live.plan.parts) {
      FlowWork& flow = work[part.active->entry->flow];
      if (flow.pass == nullptr || live.turn < flow.pass->turn) {
        flow.pass = &live;
      }
      flow.has_long_pass |= live.long_one;
    }
  }
  const absl::Time now = clock_->Now();
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [flow, queue] : queues_) {
    if (queue.empty()) continue;
    Account& account = *flow->account;
    const absl::Time fits = account.usage.WhenFits(now, account.budget, {});
    if (fits > now) {
      *wake = std::min(*wake, fits);
      continue;
    }
    const size_t size = std::min(queue.size(), kFronts);
    FlowWork& found = work[flow];
    found.fronts.assign(queue.begin(), queue.begin() + size);
    if (size > kFew) found.wanted = share_.turn();
    for (const Entry* entry : found.fronts) {
      // A turn is as good as more.
      if (found.wanted >= share_.turn()) break;
      for (const ScheduledRun& run : entry->waiting) {
        found.wanted += SecondsOf(run);
      }
    }
  }
  *wake = std::min(*wake, next_deadline_.load());
  for (const bool active : {false, true}) {
    for (auto& [alias, account] : share_.accounts()) {
      for (Flow& flow : account.flows) {
        if (work.contains(&flow) == active) share_.SetActive(&flow, active);
      }
    }
  }
  for (auto& [flow, found] : work) {
    found.virtual_time = flow->virtual_time;
    found.rank = share_.Rank(*flow, found.wanted);
    found.pace = FairShare::Pace(*flow);
    found.last = turns_[flow].last;
  }
  return work;
}

Scheduler::LivePass* Scheduler::ChoosePass(absl::Time* wake) {
  // A pass that lost all its runs has nobody to run for.
  passes_.remove_if(
      [](const LivePass& live) { return live.plan.parts.empty(); });
  const uint64_t ended = runs_ended_;
  LivePass* chosen = nullptr;
  for (Work work = FindWork(wake); chosen == nullptr && !work.empty();) {
    const auto least = std::min_element(
        work.begin(), work.end(), [](const auto& a, const auto& b) {
          const auto key = [](const FlowWork& found) {
            return std::pair(found.rank, found.last);
          };
          return key(a.second) < key(b.second);
        });
    Flow* flow = least->first;
    LivePass* parked = least->second.pass;
    Turns& turns = turns_[flow];
    if (parked == nullptr || turns.last_new <= parked->turn) {
      chosen = StartPass(flow, &work);
      if (chosen != nullptr) turns.last_new = turn_ + 1;
    }
    if (chosen == nullptr) chosen = parked;
    if (chosen != nullptr) turns.last = turn_ + 1;
    work.erase(flow);
  }
  if (runs_ended_ != ended) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      EraseEmptyEntries();
    }
    let_go_.clear();
  }
  return chosen;
}

// Of the models that the flow's runs want, the one served longest ago.
const Model* Scheduler::ChooseModel(const FlowWork& work) {
  const Model* chosen = nullptr;
  const auto consider = [&](const Model* model) {
    if (model == nullptr) return;
    if (chosen == nullptr || last_served_[model] < last_served_[chosen]) {
      chosen = model;
    }
  };
  for (const Active* active : work.idle) {
    consider(active->scheduled.run->next_model());
  }
  std::lock_guard<std::mutex> lock(mutex_);
  for (Entry* entry : work.fronts) {
    if (entry->waiting.empty()) continue;
    const Model* model = entry->waiting.front().run->next_model();
    if (MayAdmit(entry, model)) consider(model);
  }
  return chosen;
}

Scheduler::LivePass* Scheduler::StartPass(Flow* first, Work* work) {
  if (LivePass* comparison = StartComparison(&(*work)[first])) {
    return comparison;
  }
  PassPlan plan;
  plan.model = ChooseModel((*work)[first]);
  if (plan.model == nullptr) return nullptr;
  const double row_cost = std::max(1e-6, seconds_per_row_);
  std::vector<std::pair<Flow*, FlowWork*>> flows;  // that may add more
  for (auto& [flow, found] : *work) flows.emplace_back(flow, &found);
  const auto had_less = [](const auto& a, const auto& b) {
    return a.second->virtual_time < b.second->virtual_time;
  };
  auto next = std::find_if(flows.begin(), flows.end(),
                           [first](const auto& f) { return f.first == first; });
  bool shared = false;
  while (true) {
    const auto [flow, found] = *next;
    shared |= flow != first;
    int limit = options_.max_rows_per_pass;
    if (!plan.parts.empty()) {
      limit = std::min(limit, options_.max_rows_per_flow);
      if (shared) limit = std::min(limit, SliceRows());
    }
    const int before = plan.rows;
    if (PlanNext(flow, limit, found, &plan)) {
      found->virtual_time += (plan.rows - before) * row_cost * found->pace;
    } else {
      flows.erase(next);
      if (plan.parts.empty()) break;
    }
    if (flows.empty() || plan.rows >= options_.max_rows_per_pass) break;
    next = std::min_element(flows.begin(), flows.end(), had_less);
  }
  if (plan.parts.empty()) return nullptr;
  if (last_served_.size() > 64) last_served_.clear();
  last_served_[plan.model] = turn_ + 1;
  LivePass& live = passes_.emplace_back();
  live.pass = device_->StartPass(*plan.model, plan.sequences);
  live.long_one = plan.rows > SliceRows();
  live.plan = std::move(plan);
  return &live;
}

Scheduler::LivePass* Scheduler::StartComparison(FlowWork* work) {
  for (Active* active : work->idle) {
    Run* run = active->scheduled.run.get();
    if (!run->comparing()) continue;
    active->in_pass = true;
    LivePass& live = passes_.emplace_back();
    live.pass = std::make_unique<ComparisonPass>(run);
    live.long_one = true;
    live.compares = true;
    live.plan.rows = 1;
    live.plan.parts.push_back({active, {}, 1});
    return &live;
  }
  return nullptr;
}

bool Scheduler::PlanNext(Flow* flow, int limit, FlowWork* work,
                         PassPlan* plan) {
  if (plan->parts.empty() && turns_[flow].owes_waiting &&
      PlanWaiting(flow, limit, work, plan)) {
    return true;
  }
  return PlanIdle(limit, work, plan) || PlanWaiting(flow, limit, work, plan);
}

bool Scheduler::PlanIdle(int limit, FlowWork* work, PassPlan* plan) {
  for (; !work->idle.empty();) {
    Active* active = work->idle.front();
    work->idle.pop_front();
    if (AddSequences(active, limit, plan)) return true;
  }
  return false;
}

bool Scheduler::PlanWaiting(Flow* flow, int limit, FlowWork* work,
                            PassPlan* plan) {
  const bool alone = plan->parts.empty();
  bool oldest = true;  // of the flow's queue
  while (!work->fronts.empty()) {
    Entry* entry = work->fronts.front();
    work->fronts.pop_front();
    ScheduledRun run;
    {
      // Between the look at the run and taking it nobody may cancel it.
      std::lock_guard<std::mutex> lock(mutex_);
      if (entry->waiting.empty()) continue;
      const ScheduledRun& front = entry->waiting.front();
      if (!MayAdmit(entry, front.run->next_model()) ||
          front.run->next_model() != plan->model || front.run->cancelled()) {
        continue;
      }
      // One long pass of a flow at a time: the next is not done sooner for
      // being begun sooner.
      const int64_t rows = front.prefill_rows;
      const bool fits = alone ? !work->has_long_pass || rows <= SliceRows()
                              : rows <= limit - plan->rows;
      if (!fits) {
        if (oldest) turns_[flow].owes_waiting = true;
        oldest = false;
        continue;
      }
      run = TakeFront(entry);
    }
    Active* active = TryAdmit(entry, std::move(run));
    if (active == nullptr) continue;
    if (oldest) turns_[flow].owes_waiting = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!entry->waiting.empty()) work->fronts.push_back(entry);
    }
    if (AddSequences(active, limit, plan)) return true;
  }
  return false;
}

// With mutex_ held. Whether memory may be asked for.
bool Scheduler::MayAdmit(Entry* entry, const Model* model) {
  const auto it = blocked_.find(model);
  if (it == blocked_.end()) return true;
  if (it->second.entry->waiting.empty()) {  // it has gone
    blocked_.erase(it);
    return true;
  }
  return it->second.entry == entry && it->second.runs_ended != runs_ended_;
}

// With mutex_ held. The entry's next run, off its deque until TryAdmit has
// decided; the entry leaves its queue.
ScheduledRun Scheduler::TakeFront(Entry* entry) {
  ScheduledRun run = std::move(entry->waiting.front());
  entry->waiting.pop_front();
  entry->reserving = true;
  std::deque<Entry*>& queue = queues_[entry->flow];
  queue.erase(std::find(queue.begin(), queue.end(), entry));
  return run;
}

// Gives the run its memory; nullptr: it got none.
Scheduler::Active* Scheduler::TryAdmit(Entry* entry, ScheduledRun run) {
  const Model* model = run.run->next_model();
  const absl::Status status = run.run->Reserve();
  const bool later = absl::IsResourceExhausted(status) && !active_.empty();
  if (!status.ok() && !later) {
    run.run->Cancel(status);
    Forget(std::move(run), entry);
  }
  std::unique_lock<std::mutex> lock(mutex_);
  entry->reserving = false;
  std::deque<Entry*>& queue = queues_[entry->flow];
  if (later) {
    blocked_[model] = {entry, runs_ended_};
    entry->waiting.push_front(std::move(run));
    queue.push_front(entry);
    return nullptr;
  }
  blocked_.erase(model);
  if (!entry->waiting.empty()) queue.push_back(entry);
  if (!status.ok()) {
    MayBeEmpty(entry);
    return nullptr;
  }
  ++entry->active;
  SetWaiting(entry, false);
  TellPositions();
  lock.unlock();
  {
    std::lock_guard<std::mutex> request_lock(entry->request->mutex_);
    entry->request->started_ =
        std::min(entry->request->started_, clock_->Now());
  }
  active_.push_back(std::make_unique<Active>());
  active_.back()->entry = entry;
  active_.back()->scheduled = std::move(run);
  return active_.back().get();
}

// What fits of the run's sequences; the first of a pass always does.
bool Scheduler::AddSequences(Active* active, int limit, PassPlan* plan) {
  Run& run = *active->scheduled.run;
  if (run.cancelled() || run.finished()) return false;
  std::vector<Sequence*> ready;
  run.AppendReady(plan->model, &ready);
  PassPlan::Part part;
  part.active = active;
  for (Sequence* sequence : ready) {
    const int rows = device_->Rows(*sequence);
    if (!plan->sequences.empty() && rows > limit - plan->rows) continue;
    plan->sequences.push_back(sequence);
    plan->rows += rows;
    part.sequences.push_back(sequence);
    part.rows += rows;
  }
  if (part.sequences.empty()) return false;
  active->in_pass = true;
  plan->parts.push_back(std::move(part));
  return true;
}

}  // namespace qk
