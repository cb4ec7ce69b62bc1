#include "server/schedule/pass_planner.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace qk {
namespace {

// With up to this many rows, a pass takes little longer than reading the
// weights.
constexpr int kFewRows = 32;
constexpr int kRowsBeforeMeasured = 64;
// How long a run that has begun keeps its memory while its user's budget is
// used up.
constexpr absl::Duration kLongestPause = absl::Seconds(10);

// Compares a run's arms. A step is one tile.
class ComparisonPass : public DevicePass {
 public:
  explicit ComparisonPass(Run* run) : run_(run) {}
  void RunStep() override {
    run_->CompareTile();
    seconds_ = run_->compare_seconds();
  }
  void DropCancelled() override {}
  bool done() const override { return !run_->comparing(); }
  absl::Status Finish() override { return absl::OkStatus(); }
  double Seconds() override { return seconds_; }

 private:
  Run* const run_;
  double seconds_ = 0;
};

}  // namespace

int PassPlanner::SliceRows() const {
  if (row_time_->seconds() <= 0) return kRowsBeforeMeasured;
  const double rows =
      absl::ToDoubleSeconds(options_.slice) / row_time_->seconds();
  return static_cast<int>(std::clamp<double>(
      rows, kFewRows, std::max(kFewRows, options_.max_rows_per_pass)));
}

int PassPlanner::RowsOfSeveral(bool shared) const {
  const int rows =
      std::min(options_.max_rows_per_pass, options_.max_rows_per_flow);
  return shared ? std::min(rows, SliceRows()) : rows;
}

PassPlanner::Work PassPlanner::FindWork(absl::Time* wake) {
  Work work;
  std::map<Flow*, double> running;  // device seconds that runs still need
  for (const auto& active : active_->runs()) {
    const Run& run = active->run();
    if (run.finished() || run.cancelled()) continue;
    const double all =
        row_time_->SecondsOf(active->origin.scheduled.prefill_rows);
    running[active->origin.flow] += std::max(0.0, all - active->seconds);
    if (!active->in_pass)
      work[active->origin.flow].idle.push_back(active.get());
  }
  for (LivePass& live : active_->passes()) {
    for (const PassPlan::Part& part : live.plan.parts) {
      Flow* flow = part.active->origin.flow;
      running.try_emplace(flow, 0);
      FlowWork& found = work[flow];
      if (found.pass == nullptr || live.turn < found.pass->turn) {
        found.pass = &live;
      }
      found.has_long_pass |= live.is_long;
    }
  }
  for (auto& [flow, demand] : queue_->Demand(running, wake)) {
    FlowWork& found = work[flow];
    found.demand = std::move(demand);
    found.last = turns_[flow].last;
    const absl::Time fits = found.demand.used_up_until;
    if (fits > clock_->Now()) StopUsedUp(fits, &found);
  }
  return work;
}

void PassPlanner::StopUsedUp(absl::Time fits, FlowWork* work) {
  std::erase_if(work->idle, [&](const ActiveRun* active) {
    if (active->run().comparing()) return false;
    const QueuedRun& origin = active->origin;
    if (fits >
        std::min(origin.request->deadline(), clock_->Now() + kLongestPause)) {
      queue_->EndUsedUp(origin.request, fits);
    }
    return true;
  });
}

LivePass* PassPlanner::Choose(absl::Time* wake) {
  // Drop passes whose runs were all cancelled.
  active_->passes().remove_if(
      [](const LivePass& live) { return live.plan.parts.empty(); });
  LivePass* chosen = nullptr;
  for (Work work = FindWork(wake); chosen == nullptr && !work.empty();) {
    const auto least = std::min_element(
        work.begin(), work.end(), [](const auto& a, const auto& b) {
          const auto key = [](const FlowWork& found) {
            return std::pair(found.demand.rank, found.last);
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
  if (chosen != nullptr) chosen->turn = ++turn_;
  queue_->EraseEmpty();
  return chosen;
}

const Model* PassPlanner::ChooseModel(const FlowWork& work) {
  const Model* chosen = nullptr;
  const auto consider = [&](const Model* model) {
    if (model == nullptr) return;
    if (chosen == nullptr || last_served_[model] < last_served_[chosen]) {
      chosen = model;
    }
  };
  for (const ActiveRun* active : work.idle) {
    consider(active->run().next_model());
  }
  for (const Model* model : queue_->NextModels(work.demand.fronts)) {
    consider(model);
  }
  return chosen;
}

LivePass* PassPlanner::StartPass(Flow* first, Work* work) {
  if (LivePass* comparison = StartComparison(&(*work)[first])) {
    return comparison;
  }
  PassPlan plan;
  plan.model = ChooseModel((*work)[first]);
  if (plan.model == nullptr) return nullptr;
  const double row_cost = std::max(1e-6, row_time_->seconds());
  std::vector<std::pair<Flow*, FlowWork*>> flows;  // these may add runs
  for (auto& [flow, found] : *work) flows.emplace_back(flow, &found);
  const auto had_less = [](const auto& a, const auto& b) {
    return a.second->demand.virtual_time < b.second->demand.virtual_time;
  };
  auto next = std::find_if(flows.begin(), flows.end(),
                           [first](const auto& f) { return f.first == first; });
  bool shared = false;
  while (true) {
    const auto [flow, found] = *next;
    shared |= flow != first;
    int limit = options_.max_rows_per_pass;
    if (!plan.parts.empty()) limit = RowsOfSeveral(shared);
    const int before = plan.rows;
    if (PlanNext(flow, limit, found, &plan)) {
      found->demand.virtual_time +=
          (plan.rows - before) * row_cost * found->demand.pace;
    } else {
      flows.erase(next);
      if (plan.parts.empty()) break;
    }
    if (flows.empty() || plan.rows >= options_.max_rows_per_pass) break;
    next = std::min_element(flows.begin(), flows.end(), had_less);
  }
  if (plan.parts.empty()) return nullptr;
  plan.most_rows = std::max(plan.rows, RowsOfSeveral(shared));
  if (last_served_.size() > 64) last_served_.clear();
  last_served_[plan.model] = turn_ + 1;
  LivePass& live = active_->passes().emplace_back();
  live.pass = device_->StartPass(*plan.model, plan.sequences);
  live.is_long = plan.rows > SliceRows();
  live.plan = std::move(plan);
  return &live;
}

LivePass* PassPlanner::StartComparison(FlowWork* work) {
  for (ActiveRun* active : work->idle) {
    Run* run = &active->run();
    if (!run->comparing()) continue;
    active->in_pass = true;
    LivePass& live = active_->passes().emplace_back();
    live.pass = std::make_unique<ComparisonPass>(run);
    live.is_long = true;
    live.is_comparison = true;
    live.plan.rows = 1;
    live.plan.parts.push_back({active, {}, 1});
    return &live;
  }
  return nullptr;
}

bool PassPlanner::PlanNext(Flow* flow, int limit, FlowWork* work,
                           PassPlan* plan) {
  if (plan->parts.empty() && turns_[flow].owes_waiting &&
      PlanWaiting(flow, limit, work, plan)) {
    return true;
  }
  return PlanIdle(limit, work, plan) || PlanWaiting(flow, limit, work, plan);
}

bool PassPlanner::PlanIdle(int limit, FlowWork* work, PassPlan* plan) {
  while (!work->idle.empty()) {
    ActiveRun* active = work->idle.front();
    work->idle.pop_front();
    if (AddSequences(active, limit, plan)) return true;
  }
  return false;
}

bool PassPlanner::PlanWaiting(Flow* flow, int limit, FlowWork* work,
                              PassPlan* plan) {
  std::deque<QueuedRequest*>& fronts = work->demand.fronts;
  int64_t max_rows = std::numeric_limits<int64_t>::max();
  if (!plan->parts.empty()) {
    max_rows = limit - plan->rows;
  } else if (work->has_long_pass) {
    // A flow has one long pass at a time: starting a second one earlier would
    // not finish it earlier.
    max_rows = SliceRows();
  }
  bool oldest = true;  // no older run of the queue was skipped as too long
  while (!fronts.empty()) {
    QueuedRequest* queued = fronts.front();
    fronts.pop_front();
    bool too_long = false;
    std::optional<QueuedRun> run =
        queue_->Take(queued, plan->model, max_rows, &too_long);
    if (too_long) {
      if (oldest) turns_[flow].owes_waiting = true;
      oldest = false;
    }
    if (!run.has_value()) continue;
    ActiveRun* active = active_->Admit(*std::move(run));
    if (active == nullptr) continue;
    if (oldest) turns_[flow].owes_waiting = false;
    if (queue_->HasWaiting(queued)) fronts.push_back(queued);
    if (AddSequences(active, limit, plan)) return true;
  }
  return false;
}

bool PassPlanner::AddSequences(ActiveRun* active, int limit, PassPlan* plan) {
  Run& run = active->run();
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
