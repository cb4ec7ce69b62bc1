#include "server/schedule/slice_runner.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace qk {
namespace {

// A pass that was expected to fit into a slice may take this many. Otherwise
// its rest would wait for the turns of all other flows.
constexpr double kGrace = 2;

}  // namespace

void SliceRunner::RunSlice(LivePass* live) {
  const double start = clock_->Seconds();
  const uint64_t arrivals = queue_->arrivals();
  double slice = absl::ToDoubleSeconds(slice_);
  if (!live->is_long) slice *= kGrace;
  while (!live->pass->done()) {
    live->pass->RunStep();
    active_->EndCancelled();
    if (live->plan.parts.empty()) break;
    if (clock_->Seconds() - start >= slice) break;
    // A new request may have priority over the running ones. A short pass ends
    // before that matters.
    if (live->is_long && queue_->arrivals() != arrivals) break;
  }
  if (!live->plan.parts.empty() && !live->pass->done()) {
    ChargeSteps(live);
    return;
  }
  const absl::Status status = live->pass->Finish();
  ChargeSteps(live);
  FinishPass(live, status);
  active_->passes().remove_if(
      [live](const LivePass& pass) { return &pass == live; });
  active_->DropFinished();
}

// Charges what the device has done since the last time.
void SliceRunner::ChargeSteps(LivePass* live) {
  const double seconds = live->pass->Seconds();
  Charge(live->plan, seconds - std::exchange(live->seconds, seconds));
}

void SliceRunner::Charge(const PassPlan& plan, double seconds) {
  int rows = 0;
  for (const PassPlan::Part& part : plan.parts) rows += part.rows;
  std::vector<std::pair<QueuedRequest*, double>> used;
  for (const PassPlan::Part& part : plan.parts) {
    const double of_run = seconds * part.rows / std::max(1, rows);
    part.active->seconds += of_run;
    used.emplace_back(part.active->origin.queued, of_run);
  }
  queue_->Charge(used);
  for (size_t i = 0; i < plan.parts.size(); ++i) {
    plan.parts[i].active->origin.scheduled.device->Use({used[i].second, 0});
  }
}

void SliceRunner::FinishPass(LivePass* live, const absl::Status& status) {
  const PassPlan& plan = live->plan;
  if (live->is_comparison) {
    for (const PassPlan::Part& part : plan.parts) part.active->in_pass = false;
    return;
  }
  observer_->OnPass({.model = plan.model,
                     .rows = plan.rows,
                     .most_rows = plan.most_rows,
                     .sequences = static_cast<int>(plan.sequences.size()),
                     .seconds = live->seconds,
                     .status = status});
  row_time_->Measure(plan.rows, live->seconds);
  for (const PassPlan::Part& part : plan.parts) {
    part.active->in_pass = false;
    Run& run = part.active->run();
    // Cancellation flags are never cleared: a run that is not cancelled now was
    // not cancelled during the pass, so the pass computed all its rows.
    if (run.cancelled()) {
      run.FinishCancelled();
      continue;
    }
    const double start = clock_->Seconds();
    run.AfterPass(part.sequences, status,
                  live->seconds * part.rows / std::max(1, plan.rows));
    const double seconds = clock_->Seconds() - start;
    part.active->seconds += seconds;
    queue_->Charge({{part.active->origin.queued, seconds}});
  }
}

}  // namespace qk
