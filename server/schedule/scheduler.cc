#include "server/schedule/scheduler.h"

#include <algorithm>
#include <utility>

namespace qk {
namespace {

// What a user may take in one go: enough that a short request, whose passes
// others share and whose comparison follows, is not interrupted.
constexpr double kSlicesOfATurn = 1.5;

// Positions of very many waiting requests are told this often.
constexpr absl::Duration kTellEvery = absl::Milliseconds(200);
constexpr int kTellAtOnce = 32;

// How long an idle device waits for who comes together with a first request:
// a part of the time that the request will take. As often as somebody comes.
constexpr double kGatherPart = 0.01;
constexpr int kGatherTimes = 8;
// Less than this cannot be slept.
constexpr absl::Duration kLeastGather = absl::Microseconds(50);

}  // namespace

// Ties requests to a scheduler that may go before them.
class Scheduler::Listener : public RequestListener {
 public:
  explicit Listener(Scheduler* scheduler) : scheduler_(scheduler) {}
  void OnCancel(ScheduledRequest* request) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (scheduler_ != nullptr) scheduler_->DropWaiting(request);
  }
  void OnGone(ScheduledRequest* request) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (scheduler_ != nullptr) scheduler_->OnGone(request);
  }
  void Leave() {
    std::lock_guard<std::mutex> lock(mutex_);
    scheduler_ = nullptr;
  }

 private:
  std::mutex mutex_;
  Scheduler* scheduler_;
};

Scheduler::Scheduler(const SchedulerOptions& options, Device* device,
                     SchedulerObserver* observer, const Clock* clock)
    : options_(options),
      device_(device),
      observer_(observer),
      clock_(clock),
      listener_(std::make_shared<Listener>(this)),
      share_(kSlicesOfATurn * absl::ToDoubleSeconds(options.slice)) {
  if (options.own_thread) thread_ = std::thread([this] { Loop(); });
}

Scheduler::~Scheduler() {
  StopAdmission();
  CancelAll(absl::UnavailableError("server is shutting down"));
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  absl::Time wake;
  if (thread_.joinable()) {
    thread_.join();
  } else {
    while (Step(&wake)) {
    }
  }
  listener_->Leave();
}

void Scheduler::Loop() {
  absl::Time wake = absl::InfiniteFuture();
  uint64_t seen = 0;
  const auto stopping = [this] { return stopping_; };
  for (bool busy = false;; busy = Step(&wake)) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto changed = [&] {
      return stopping_ || arrivals_ != seen ||
             cancellations_ != seen_cancellations_;
    };
    if (!busy && entries_.empty()) {
      changed_.wait(lock, changed);
    } else if (!busy) {
      // A wait until the end of time would overflow in the library.
      changed_.wait_until(
          lock,
          absl::ToChronoTime(std::min(wake, clock_->Now() + absl::Hours(1))),
          changed);
    }
    const bool idle = active_.empty();
    for (int i = 0; idle && i < kGatherTimes && arrivals_ != seen; ++i) {
      seen = arrivals_;
      const absl::Duration gather = GatherTime();
      if (gather < kLeastGather) break;
      changed_.wait_for(lock, absl::ToChronoNanoseconds(gather), stopping);
    }
    seen = arrivals_;
    // Cancelled runs still have to be told.
    if (stopping_ && entries_.empty()) return;
  }
}

// With mutex_ held.
absl::Duration Scheduler::GatherTime() const {
  int64_t rows = 0;
  for (const Entry& entry : entries_) {
    for (const ScheduledRun& run : entry.waiting) rows += run.prefill_rows;
  }
  const double seconds = static_cast<double>(rows) * seconds_per_row_;
  return std::min(options_.max_gather, absl::Seconds(kGatherPart * seconds));
}

bool Scheduler::Step(absl::Time* wake) {
  *wake = absl::InfiniteFuture();
  Sweep();
  LivePass* live = ChoosePass(wake);
  if (live == nullptr) return false;
  RunSlice(live);
  return true;
}

absl::Status Scheduler::Submit(const std::shared_ptr<ScheduledRequest>& request,
                               std::vector<ScheduledRun> runs) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!admitting_) return absl::UnavailableError("server is shutting down");
  Account* account = share_.Of(*request->info().user);
  const auto found = by_request_.find(request.get());
  if (found == by_request_.end()) {
    const absl::Status status = CheckAdmission(account, runs);
    if (!status.ok()) return status;
  }
  {
    std::lock_guard<std::mutex> request_lock(request->mutex_);
    if (!request->cancelled_.ok()) return request->cancelled_;
    request->listener_ = listener_;
    for (const ScheduledRun& run : runs) {
      request->runs_.push_back(run.run.get());
    }
  }
  Entry* entry = nullptr;
  if (found != by_request_.end()) {
    entry = found->second;
  } else {
    entry = &entries_.emplace_back();
    entry->self = std::prev(entries_.end());
    entry->request = request;
    entry->flow = &account->flows[static_cast<int>(request->info().priority)];
    entry->submitted = clock_->Now();
    by_request_[request.get()] = entry;
    if (known_
            .try_emplace(request.get(),
                         Known{request, account, clock_->Now(), arrivals_})
            .second) {
      ++account->in_flight;
    }
    SetWaiting(entry, true);
    next_deadline_ = std::min(next_deadline_.load(), request->deadline());
  }
  if (entry->waiting.empty() && !entry->reserving) {
    queues_[entry->flow].push_back(entry);
  }
  for (ScheduledRun& run : runs) entry->waiting.push_back(std::move(run));
  ++arrivals_;
  TellPositions();
  changed_.notify_all();
  return absl::OkStatus();
}

void Scheduler::ChargeBytes(const User& user, Priority priority,
                            int64_t bytes) {
  // Of a stream, beside a second of the device.
  constexpr double kBytesPerSecond = 1e9;
  std::lock_guard<std::mutex> lock(mutex_);
  Account* account = share_.Of(user);
  account->bytes += bytes;
  account->usage.Add(clock_->Now(), account->budget, {0, bytes});
  share_.Charge(&account->flows[static_cast<int>(priority)],
                static_cast<double>(bytes) / kBytesPerSecond);
}

void Scheduler::SetWaiting(Entry* entry, bool waiting) {
  if (entry->waits == waiting) return;
  entry->waits = waiting;
  const int change = waiting ? 1 : -1;
  waiting_ += change;
  entry->flow->account->queued += change;
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
  std::vector<std::shared_ptr<ScheduledRequest>> requests;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (Entry& entry : entries_) requests.push_back(entry.request);
  }
  for (const auto& request : requests) request->Cancel(reason);
}

// Waiting requests are numbered as they would start if all flows took turns.
void Scheduler::TellPositions() {
  const absl::Time now = clock_->Now();
  observer_->OnQueue(waiting_, static_cast<int>(by_request_.size()) - waiting_);
  if (waiting_ > kTellAtOnce && now - positions_told_ < kTellEvery) return;
  positions_told_ = now;
  std::map<const Flow*, int> of_flow;
  std::vector<std::pair<int, Entry*>> waiting;
  for (Entry& entry : entries_) {
    if (entry.waits) waiting.emplace_back(of_flow[entry.flow]++, &entry);
  }
  std::stable_sort(
      waiting.begin(), waiting.end(),
      [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto tell = [](Entry* entry, int position) {
    if (position == entry->position) return;
    entry->position = position;
    entry->request->on_position_(position);
  };
  for (size_t i = 0; i < waiting.size(); ++i) {
    tell(waiting[i].second, static_cast<int>(i));
  }
  for (Entry& entry : entries_) {
    if (!entry.waits && !entry.gone) tell(&entry, 0);
  }
}

void Scheduler::LeaveCounts(Entry* entry) {
  if (std::exchange(entry->gone, true)) return;
  const absl::Time cancelled = entry->request->cancelled_at();
  if (cancelled < absl::InfiniteFuture()) {
    observer_->OnCancelled(absl::ToDoubleSeconds(absl::Now() - cancelled));
  }
  SetWaiting(entry, false);
  by_request_.erase(entry->request.get());
}

void Scheduler::MayBeEmpty(Entry* entry) {
  if (!std::exchange(entry->ending, true)) ending_.push_back(entry);
}

void Scheduler::EraseEmptyEntries() {
  for (Entry* entry : std::exchange(ending_, {})) {
    entry->ending = false;
    if (!entry->waiting.empty() || entry->active > 0 || entry->reserving) {
      continue;
    }
    LeaveCounts(entry);
    std::erase_if(blocked_, [&](const auto& blocked) {
      return blocked.second.entry == entry;
    });
    let_go_.push_back(std::move(entry->request));
    entries_.erase(entry->self);
  }
  if (entries_.empty()) changed_.notify_all();
}

}  // namespace qk
