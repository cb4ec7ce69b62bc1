#include "server/scheduler.h"

#include <algorithm>
#include <chrono>
#include <set>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "engine/check.h"

namespace qk {
namespace {

// Weight of the newest pass in the running mean of seconds per row.
constexpr double kNewest = 0.2;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                       start)
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

struct Scheduler::PassPlan {
  const Model* model = nullptr;
  std::vector<Sequence*> sequences;
  int rows = 0;
  // Whose they are: `sequences` [begin, end), rows.
  struct Part {
    Active* active;
    size_t begin;
    size_t end;
    int rows;
  };
  std::vector<Part> parts;
};

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

absl::Status Scheduler::Submit(
    const std::shared_ptr<ScheduledRequest>& request,
    std::vector<ScheduledRun> runs) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!admitting_) return absl::UnavailableError("server is shutting down");
  auto entry = std::find_if(
      entries_.begin(), entries_.end(),
      [&](const Entry& e) { return e.request == request; });
  if (entry == entries_.end()) {
    const int waiting = CountWaiting();
    if (waiting >= options_.max_queued_requests) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("queue full (%d/%d)", waiting,
                          options_.max_queued_requests));
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
    const bool finished =
        active->scheduled.run->finished() && !active->in_pass;
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
