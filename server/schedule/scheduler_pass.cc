// Running a pass, a slice at a time, and what its users are charged.
#include <algorithm>
#include <utility>

#include "server/schedule/scheduler.h"

namespace qk {
namespace {

// Weight of the newest pass in the running mean of seconds per row.
constexpr double kNewest = 0.2;
// What was to fit into a slice and nearly did is not parked for its rest.
constexpr double kGrace = 2;
// Passes of fewer rows are bound by the reading of the weights.
constexpr int kManyRows = 16;

}  // namespace

void Scheduler::RunSlice(LivePass* live) {
  live->turn = ++turn_;
  const double start = clock_->Seconds();
  const uint64_t arrivals = arrivals_;
  double slice = absl::ToDoubleSeconds(options_.slice);
  if (!live->long_one) slice *= kGrace;
  while (!live->pass->done()) {
    live->pass->RunStep();
    Sweep();
    if (live->plan.parts.empty()) break;
    if (clock_->Seconds() - start >= slice) break;
    // Who has just come may have had less than those who run. A short pass is
    // over before that matters.
    if (live->long_one && arrivals_ != arrivals) break;
  }
  if (!live->plan.parts.empty() && !live->pass->done()) {
    const double seconds = clock_->Seconds() - start;
    live->seconds += seconds;
    Charge(live->plan, seconds);
    return;
  }
  const absl::Status status = live->pass->Finish();
  const double seconds = clock_->Seconds() - start;
  live->seconds += seconds;
  Charge(live->plan, seconds);
  FinishPass(live, status);
  passes_.remove_if([live](const LivePass& pass) { return &pass == live; });
  DropFinished();
}

void Scheduler::Charge(const PassPlan& plan, double seconds) {
  int rows = 0;
  for (const PassPlan::Part& part : plan.parts) rows += part.rows;
  std::lock_guard<std::mutex> lock(mutex_);
  for (const PassPlan::Part& part : plan.parts) {
    ChargeRun(part.active, seconds * part.rows / std::max(1, rows));
  }
}

// With mutex_ held.
void Scheduler::ChargeRun(Active* active, double seconds) {
  active->seconds += seconds;
  Entry* entry = active->entry;
  Account& account = *entry->flow->account;
  account.device_seconds += seconds;
  account.usage.Add(clock_->Now(), account.budget, {seconds, 0});
  share_.Charge(entry->flow, seconds);
  entry->request->device_seconds_ += seconds;
}

void Scheduler::FinishPass(LivePass* live, const absl::Status& status) {
  const PassPlan& plan = live->plan;
  if (live->compares) {
    for (const PassPlan::Part& part : plan.parts) part.active->in_pass = false;
    return;
  }
  observer_->OnPass(*plan.model, plan.rows,
                    static_cast<int>(plan.sequences.size()), live->seconds,
                    status);
  if (plan.rows >= kManyRows || seconds_per_row_ == 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    const double now = live->seconds / std::max(1, plan.rows);
    seconds_per_row_ = seconds_per_row_ == 0
                           ? now
                           : (1 - kNewest) * seconds_per_row_ + kNewest * now;
  }
  for (const PassPlan::Part& part : plan.parts) {
    part.active->in_pass = false;
    Run& run = *part.active->scheduled.run;
    // Flags are only ever set: a run that is not cancelled now was not while
    // the pass ran, so its rows are whole.
    if (run.cancelled()) {
      run.FinishCancelled();
      continue;
    }
    const double start = clock_->Seconds();
    run.AfterPass(part.sequences, status,
                  live->seconds * part.rows / std::max(1, plan.rows));
    const double seconds = clock_->Seconds() - start;
    std::lock_guard<std::mutex> lock(mutex_);
    ChargeRun(part.active, seconds);
  }
}

}  // namespace qk
