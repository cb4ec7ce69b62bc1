#include "server/scheduler.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "engine/check.h"

namespace qk {
namespace {

// Weight of the newest pass in the running mean of seconds per row.
constexpr double kNewest = 0.2;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace

void ScheduledRequest::Cancel(const absl::Status& reason) {
  QK_CHECK(!reason.ok());
  std::lock_guard<std::mutex> lock(mutex_);
  if (!cancelled_.ok()) return;
  cancelled_ = reason;
  for (Run* run : runs_) run->Cancel(reason);
}

absl::Status ScheduledRequest::cancelled() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return cancelled_;
}

absl::Time ScheduledRequest::started() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return started_;
}

Scheduler::Scheduler(const SchedulerOptions& options, Device* device,
                     SchedulerObserver* observer)
    : options_(options), device_(device), observer_(observer) {
  thread_ = std::thread([this] { Loop(); });
}

Scheduler::~Scheduler() {
  StopAdmission();
  CancelAll(absl::UnavailableError("server is shutting down"));
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

absl::Status Scheduler::Submit(const std::shared_ptr<ScheduledRequest>& request,
                               std::vector<ScheduledRun> runs) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!admitting_) return absl::UnavailableError("server is shutting down");
  auto entry =
      std::find_if(entries_.begin(), entries_.end(),
                   [&](const Entry& e) { return e.request == request; });
  if (entry == entries_.end()) {
    const int waiting = CountWaiting();
    if (waiting >= options_.max_queued_requests) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "queue full (%d/%d)", waiting, options_.max_queued_requests));
    }
  }
  {
    std::lock_guard<std::mutex> request_lock(request->mutex_);
    if (!request->cancelled_.ok()) return request->cancelled_;
    for (const ScheduledRun& run : runs) {
      request->runs_.push_back(run.run.get());
    }
  }
  if (entry == entries_.end()) {
    entry = entries_.emplace(entries_.end());
    entry->request = request;
  }
  for (ScheduledRun& run : runs) entry->waiting.push_back(std::move(run));
  TellPositions();
  changed_.notify_all();
  return absl::OkStatus();
}

Scheduler::State Scheduler::state() const {
  std::lock_guard<std::mutex> lock(mutex_);
  State state;
  state.waiting_requests = CountWaiting();
  state.running_requests =
      static_cast<int>(entries_.size()) - state.waiting_requests;
  for (const Entry& entry : entries_) {
    for (const ScheduledRun& run : entry.waiting) {
      state.rows_ahead += run.prefill_rows;
    }
  }
  state.seconds_per_row = seconds_per_row_;
  return state;
}

void Scheduler::StopAdmission() {
  std::lock_guard<std::mutex> lock(mutex_);
  admitting_ = false;
}

bool Scheduler::WaitUntilIdle(absl::Time deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_until(lock, absl::ToChronoTime(deadline),
                             [this] { return entries_.empty(); });
}

void Scheduler::CancelAll(const absl::Status& reason) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (Entry& entry : entries_) entry.request->Cancel(reason);
}

void Scheduler::Loop() {
  while (WaitForWork()) {
    Sweep();
    const Model* model = ChooseModel();
    if (model == nullptr) continue;
    last_served_[model] = ++passes_;
    PassPlan plan = MakePlan(model);
    if (!plan.sequences.empty()) RunPass(&plan);
    DropFinished();
  }
}

bool Scheduler::WaitForWork() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return stopping_ || !entries_.empty(); });
  // Cancelled runs still have to be told.
  return !entries_.empty();
}

void Scheduler::Sweep() {
  const absl::Time now = absl::Now();
  for (Entry* entry : Entries()) {
    if (entry->request->deadline_ <= now) {
      entry->request->Cancel(absl::DeadlineExceededError(
          entry->active > 0 ? "deadline exceeded"
                            : "deadline exceeded before execution"));
    }
    if (entry->request->cancelled().ok()) continue;
    std::deque<ScheduledRun> gone;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      gone.swap(entry->waiting);
    }
    for (ScheduledRun& run : gone) Forget(std::move(run), entry);
  }
  for (auto& active : active_) {
    Run& run = *active->scheduled.run;
    if (!active->in_pass && run.cancelled()) run.FinishCancelled();
  }
  DropFinished();
}

void Scheduler::RunPass(PassPlan* plan) {
  const auto start = std::chrono::steady_clock::now();
  absl::Status status;
  {
    const std::unique_ptr<DevicePass> pass =
        device_->StartPass(*plan->model, plan->sequences);
    while (!pass->done()) {
      pass->RunLayer();
      Sweep();
    }
    status = pass->Finish();
  }
  const double seconds = SecondsSince(start);
  observer_->OnPass(*plan->model, plan->rows,
                    static_cast<int>(plan->sequences.size()), seconds, status);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const double now = seconds / std::max(1, plan->rows);
    seconds_per_row_ = seconds_per_row_ == 0
                           ? now
                           : (1 - kNewest) * seconds_per_row_ + kNewest * now;
  }
  FinishPass(*plan, status, seconds);
}

void Scheduler::FinishPass(const PassPlan& plan, const absl::Status& status,
                           double seconds) {
  for (const PassPlan::Part& part : plan.parts) {
    part.active->in_pass = false;
    Run& run = *part.active->scheduled.run;
    // Flags are only ever set: a run that is not cancelled now was not while
    // the pass ran, so its rows are whole.
    if (run.cancelled()) {
      run.FinishCancelled();
      continue;
    }
    run.AfterPass(absl::MakeConstSpan(plan.sequences)
                      .subspan(part.begin, part.end - part.begin),
                  status, seconds * part.rows / std::max(1, plan.rows));
  }
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
  for (auto& active : done) --active->entry->active;
  EraseEmptyEntries();
  TellPositions();
}

// Ends a run's life: nobody may cancel it any more, then its memory goes.
void Scheduler::Forget(ScheduledRun scheduled, Entry* entry) {
  if (!scheduled.run->finished()) scheduled.run->FinishCancelled();
  ScheduledRequest& request = *entry->request;
  std::lock_guard<std::mutex> lock(request.mutex_);
  std::erase(request.runs_, scheduled.run.get());
}

Run* Scheduler::Front(Entry* entry) {
  std::lock_guard<std::mutex> lock(mutex_);
  return entry->waiting.empty() ? nullptr : entry->waiting.front().run.get();
}

std::vector<Scheduler::Entry*> Scheduler::Entries() {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Entry*> out;
  for (Entry& entry : entries_) out.push_back(&entry);
  return out;
}

int Scheduler::CountWaiting() const {
  return static_cast<int>(
      std::count_if(entries_.begin(), entries_.end(),
                    [](const Entry& entry) { return entry.active == 0; }));
}

void Scheduler::TellPositions() {
  int waiting = 0;
  for (Entry& entry : entries_) {
    const int position = entry.active > 0 ? 0 : waiting++;
    if (position == entry.position) continue;
    entry.position = position;
    entry.request->on_position_(position);
  }
  observer_->OnQueue(waiting, static_cast<int>(entries_.size()) - waiting);
}

void Scheduler::EraseEmptyEntries() {
  entries_.remove_if([](const Entry& entry) {
    return entry.waiting.empty() && entry.active == 0 && !entry.reserving;
  });
  if (entries_.empty()) changed_.notify_all();
}

}  // namespace qk
