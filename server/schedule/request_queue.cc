#include "server/schedule/request_queue.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "server/schedule/admission.h"
#include "server/schedule/queue_places.h"
#include "server/schedule/request_table.h"

namespace qk {
namespace {

// The length of a turn in slices. A short request must not be interrupted, even
// if others share its passes and a comparison follows.
constexpr double kSlicesPerTurn = 1.5;

// An idle device waits for requests that arrive together with the first one.
// Each wait is this fraction of the time that the queue will take, and is
// repeated at most this often, as long as requests arrive.
constexpr double kGatherPart = 0.01;
constexpr int kGatherTimes = 8;
// The system cannot sleep for less.
constexpr absl::Duration kLeastGather = absl::Microseconds(50);

// When a request that found the queue full may find a place.
constexpr absl::Duration kRetryQueue = absl::Seconds(1);

}  // namespace

// Connects requests with the queue, which may be destroyed before them.
class RequestQueue::Listener : public RequestListener {
 public:
  explicit Listener(RequestQueue* queue) : queue_(queue) {}
  void OnCancel(ScheduledRequest* request) override {
    MutexLock lock(&mutex_);
    if (queue_ != nullptr) queue_->EndWaiting(request);
  }
  void OnGone(ScheduledRequest* request) override {
    MutexLock lock(&mutex_);
    if (queue_ != nullptr) queue_->EndCall(request);
  }
  void Detach() {
    MutexLock lock(&mutex_);
    queue_ = nullptr;
  }

 private:
  Mutex mutex_;
  RequestQueue* queue_ ABSL_GUARDED_BY(mutex_);
};

// Tells the queue, which may be destroyed before those who call this, that room
// was freed. It has a lock of its own, because runs that end free room.
class RequestQueue::Room {
 public:
  explicit Room(RequestQueue* queue) : queue_(queue) {}
  void Freed() {
    MutexLock lock(&mutex_);
    if (queue_ != nullptr) queue_->RoomFreed();
  }
  void Detach() {
    MutexLock lock(&mutex_);
    queue_ = nullptr;
  }

 private:
  Mutex mutex_;
  RequestQueue* queue_ ABSL_GUARDED_BY(mutex_);
};

RequestQueue::RequestQueue(const SchedulerOptions& options,
                           const RowTime* row_time, SchedulerObserver* observer,
                           const Clock* clock)
    : options_(options),
      row_time_(row_time),
      clock_(clock),
      listener_(std::make_shared<Listener>(this)),
      room_(std::make_shared<Room>(this)),
      table_(std::make_unique<RequestTable>(
          kSlicesPerTurn * absl::ToDoubleSeconds(options.slice), observer)) {}

RequestQueue::~RequestQueue() {
  listener_->Detach();
  room_->Detach();
}

std::function<void()> RequestQueue::RoomSignal() const {
  return [room = room_] { room->Freed(); };
}

absl::Status RequestQueue::Submit(
    const std::shared_ptr<ScheduledRequest>& request,
    std::vector<ScheduledRun> runs) {
  std::shared_ptr<ScheduledRequest> gives_way;
  {
    MutexLock lock(&mutex_);
    const absl::Status status = Add(request, std::move(runs), &gives_way);
    if (!status.ok()) return status;
  }
  if (gives_way != nullptr) {
    gives_way->Cancel(RefusedBySchedule(
        absl::StrFormat("queue full (%d/%d): the request waited on a place "
                        "that another user has a right to",
                        options_.max_queued_requests,
                        options_.max_queued_requests),
        {RefusedBy::kQueue, kRetryQueue}));
  }
  return absl::OkStatus();
}

absl::Status RequestQueue::Add(const std::shared_ptr<ScheduledRequest>& request,
                               std::vector<ScheduledRun> runs,
                               std::shared_ptr<ScheduledRequest>* gives_way) {
  if (!admitting_) return absl::UnavailableError("server is shutting down");
  Account* account = table_->share().AccountOf(*request->info().user);
  QueuedRequest* queued = table_->Find(request.get());
  QueuePlace place;
  if (queued == nullptr) {
    place = FindPlace(*account, options_.max_queued_requests, table_.get());
    const absl::Status status =
        place.found
            ? CheckPlaces(*account)
            : RefusedBySchedule(absl::StrFormat("queue full (%d/%d)",
                                                options_.max_queued_requests,
                                                options_.max_queued_requests),
                                {RefusedBy::kQueue, kRetryQueue});
    if (!status.ok()) return status;
  }
  absl::Status status = CheckBudgetOf(account, runs);
  if (status.ok()) status = request->AddRuns(runs, listener_);
  if (!status.ok()) return status;
  HoldUsage(*account, &runs);
  if (place.gives_way != nullptr) {
    *gives_way = place.gives_way->request;
    table_->GiveWay(place.gives_way);
  }
  if (queued == nullptr) {
    queued = table_->Add(request, clock_->Now(), arrivals_);
    next_deadline_ = std::min(next_deadline_.load(), request->deadline());
  }
  table_->AddRuns(queued, std::move(runs));
  ++arrivals_;
  table_->TellPositions(clock_->Now());
  changed_.NotifyAll();
  return absl::OkStatus();
}

void RequestQueue::RoomFreed() {
  MutexLock lock(&mutex_);
  table_->RoomFreed();
  room_freed_ = true;
  changed_.NotifyAll();
}

SchedulerState RequestQueue::state() const {
  MutexLock lock(&mutex_);
  return {.waiting_requests = table_->waiting(),
          .running_requests = table_->running(),
          .rows_ahead = table_->WaitingRows(),
          .seconds_per_row = row_time_->seconds()};
}

std::vector<ListedRequest> RequestQueue::List() const {
  MutexLock lock(&mutex_);
  return table_->List();
}

std::shared_ptr<ScheduledRequest> RequestQueue::Find(
    const std::string& id) const {
  MutexLock lock(&mutex_);
  return table_->FindById(id);
}

std::vector<UserState> RequestQueue::Users() {
  MutexLock lock(&mutex_);
  return table_->Users(clock_->Now());
}

SchedulerLoad RequestQueue::Load() {
  MutexLock lock(&mutex_);
  SchedulerLoad load = table_->Load(clock_->Now());
  load.queue_limit = options_.max_queued_requests;
  return load;
}

void RequestQueue::StopAdmission() {
  MutexLock lock(&mutex_);
  admitting_ = false;
}

bool RequestQueue::WaitUntilIdle(absl::Time deadline) {
  MutexLock lock(&mutex_);
  return changed_.WaitUntil(&mutex_, deadline,
                            [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                              return table_->requests().empty();
                            });
}

void RequestQueue::CancelAll(const absl::Status& reason) {
  Requests all;
  {
    MutexLock lock(&mutex_);
    for (const QueuedRequest& queued : table_->requests()) {
      all.push_back(queued.request);
    }
  }
  for (const auto& request : all) request->Cancel(reason);
}

void RequestQueue::Stop() {
  MutexLock lock(&mutex_);
  stopping_ = true;
  changed_.NotifyAll();
}

bool RequestQueue::WaitForWork(bool busy, absl::Time wake, bool device_idle) {
  MutexLock lock(&mutex_);
  const auto changed = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || cancelled_ || room_freed_ ||
           arrivals_ != arrivals_seen_;
  };
  const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_;
  };
  if (!busy && table_->requests().empty()) {
    changed_.Wait(&mutex_, changed);
  } else if (!busy) {
    // A wait until InfiniteFuture would overflow in the library.
    changed_.WaitUntil(&mutex_, std::min(wake, clock_->Now() + absl::Hours(1)),
                       changed);
  }
  for (int i = 0;
       device_idle && i < kGatherTimes && arrivals_ != arrivals_seen_; ++i) {
    arrivals_seen_ = arrivals_;
    const absl::Duration gather = GatherTime();
    if (gather < kLeastGather) break;
    changed_.WaitFor(&mutex_, gather, stopping);
  }
  arrivals_seen_ = arrivals_;
  room_freed_ = false;
  // The thread must still end cancelled runs.
  return !stopping_ || !table_->requests().empty();
}

absl::Duration RequestQueue::GatherTime() const {
  return std::min(
      options_.max_gather,
      absl::Seconds(kGatherPart * row_time_->SecondsOf(table_->WaitingRows())));
}

void RequestQueue::CancelOverdue() {
  const absl::Time now = clock_->Now();
  if (next_deadline_.load() > now) return;
  std::vector<std::pair<std::shared_ptr<ScheduledRequest>, bool>> overdue;
  {
    MutexLock lock(&mutex_);
    next_deadline_ = absl::InfiniteFuture();
    for (const QueuedRequest& queued : table_->requests()) {
      const absl::Time deadline = queued.request->deadline();
      if (deadline > now) {
        next_deadline_ = std::min(next_deadline_.load(), deadline);
      } else if (!queued.ended) {
        overdue.emplace_back(queued.request, queued.active > 0);
      }
    }
  }
  for (const auto& [request, active] : overdue) {
    request->Cancel(absl::DeadlineExceededError(
        active ? "deadline exceeded" : "deadline exceeded before execution"));
  }
}

std::vector<const Model*> RequestQueue::NextModels(
    const std::deque<QueuedRequest*>& requests) {
  MutexLock lock(&mutex_);
  return table_->NextModels(requests);
}

std::optional<QueuedRun> RequestQueue::Take(QueuedRequest* queued,
                                            const Model* model,
                                            int64_t max_rows, bool* too_long) {
  MutexLock lock(&mutex_);
  return table_->Take(queued, model, max_rows, too_long);
}

void RequestQueue::Admit(const QueuedRun& run, const Model* model) {
  MutexLock lock(&mutex_);
  table_->Admit(run, model);
  table_->TellPositions(clock_->Now());
}

bool RequestQueue::PutBack(QueuedRun* run, const Model* model) {
  MutexLock lock(&mutex_);
  return table_->PutBack(run, model);
}

void RequestQueue::Refuse(const QueuedRun& run, const Model* model) {
  MutexLock lock(&mutex_);
  table_->Refuse(run, model);
}

bool RequestQueue::HasWaiting(const QueuedRequest* queued) const {
  MutexLock lock(&mutex_);
  return !queued->waiting.empty();
}

void RequestQueue::Charge(
    const std::vector<std::pair<QueuedRequest*, double>>& used) {
  MutexLock lock(&mutex_);
  for (const auto& [queued, seconds] : used) {
    table_->ChargeDevice(clock_->Now(), queued, seconds);
  }
}

void RequestQueue::EndRuns(const std::vector<EndedRun>& runs) {
  Requests erased;  // destroyed after the lock is released
  MutexLock lock(&mutex_);
  for (const EndedRun& run : runs) {
    table_->EndRun(clock_->Now(), run.queued, run.memory_bytes);
  }
  erased = TakeEmpty();
  table_->TellPositions(clock_->Now());
}

void RequestQueue::EraseEmpty() {
  Requests erased;
  MutexLock lock(&mutex_);
  erased = TakeEmpty();
}

RequestQueue::Requests RequestQueue::TakeEmpty() {
  Requests erased = table_->TakeEmpty();
  if (table_->requests().empty()) changed_.NotifyAll();
  return erased;
}

void RequestQueue::EndWaiting(ScheduledRequest* request) {
  std::optional<std::deque<ScheduledRun>> ended;
  {
    MutexLock lock(&mutex_);
    ended = table_->TakeWaiting(request);
  }
  if (!ended.has_value()) return;
  for (ScheduledRun& run : *ended) {
    run.run->FinishCancelled();
    request->RemoveRun(run.run.get());
  }
  // The scheduler's thread ends active runs and erases the request.
  MutexLock lock(&mutex_);
  cancelled_ = true;
  table_->TellPositions(clock_->Now());
  changed_.NotifyAll();
}

void RequestQueue::EndCall(ScheduledRequest* request) {
  MutexLock lock(&mutex_);
  table_->EndCall(request);
}

}  // namespace qk
