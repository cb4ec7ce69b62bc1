#include "server/schedule/host_work.h"

#include <time.h>

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "server/schedule/admission.h"
#include "server/schedule/scheduler.h"

namespace qk {
namespace {

// What a waiting task costs beside its message.
constexpr int64_t kTaskBytes = 1024;
// Larger messages count as large.
constexpr int64_t kSmallMessage = 16 << 10;
// Large messages that one user may have begun.
constexpr int kLargePerUser = 2;
constexpr absl::Duration kRetry = absl::Seconds(1);

// A task is due when it came, plus this for each byte of its message and for
// each second that it has used: short ones of a user pass long ones, but not
// forever.
constexpr double kDelayPerByte = 1e-6;
constexpr double kDelayPerSecond = 10;
// A guess of what a task will take, for its first turn.
constexpr double kSecondsPerTask = 1e-4;
constexpr double kSecondsPerByte = 1e-7;

// Seconds of the processor that the calling thread has used.
double ThreadSeconds() {
  timespec used = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) +
         1e-9 * static_cast<double>(used.tv_nsec);
}

}  // namespace

struct HostWork::Task {
  std::shared_ptr<const User> user;
  Account* account = nullptr;
  int64_t bytes = 0;
  ByteLease waiting;
  Work work;
  bool needs_budget = false;
  uint64_t arrival = 0;
  double due = 0;
  bool may_run = false;    // of a parked task
  double turn_began = 0;   // by the clock
  double used_before = 0;  // the thread's seconds that are charged already

  bool large() const { return bytes > kSmallMessage; }
};

bool HostWork::DueFirst::operator()(const Task* a, const Task* b) const {
  return std::pair(a->due, a->arrival) < std::pair(b->due, b->arrival);
}

class HostWork::TaskParking : public Parking {
 public:
  TaskParking(HostWork* work, Task* task) : work_(work), task_(task) {}
  void MayPark(int steps) override {
    steps_ += steps;
    if (steps_ < kManySteps) return;
    steps_ = 0;
    work_->Park(task_);
  }

 private:
  HostWork* const work_;
  Task* const task_;
  int steps_ = 0;
};

HostWork::HostWork(const HostWorkOptions& options, const Clock* clock,
                   Scheduler* accounts)
    : options_(options),
      clock_(clock),
      accounts_(accounts),
      waiting_bytes_("messages that wait to be read",
                     options.max_waiting_bytes),
      share_(options.turn) {
  MutexLock lock(&mutex_);
  for (int i = 0; i < options.places; ++i) AddThread();
}

HostWork::~HostWork() {
  for (;;) {
    std::thread last;
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      ready_changed_.NotifyAll();
      if (threads_.empty()) return;
      last = std::move(threads_.back());
      threads_.pop_back();
    }
    last.join();
  }
}

void HostWork::AddThread() {
  ++idle_threads_;
  threads_.emplace_back([this] { Loop(); });
}

absl::Status HostWork::Post(std::shared_ptr<const User> user, int64_t bytes,
                            bool needs_budget, Work work) {
  if (needs_budget) QK_RETURN_IF_ERROR(accounts_->CheckBudgetLeft(*user));
  auto lease = waiting_bytes_.Take(user->alias, bytes + kTaskBytes);
  if (!lease.ok()) {
    return RefusedBySchedule(std::string(lease.status().message()),
                             {RefusedBy::kQueue, kRetry});
  }
  auto task = std::make_unique<Task>();
  task->bytes = bytes;
  task->waiting = *std::move(lease);
  task->work = std::move(work);
  task->needs_budget = needs_budget;
  task->due = clock_->Seconds() + kDelayPerByte * static_cast<double>(bytes);
  MutexLock lock(&mutex_);
  task->arrival = ++arrivals_;
  task->account = share_.AccountOf(*user);
  task->user = std::move(user);
  Tasks& tasks = users_[task->account];
  (task->large() ? tasks.large : tasks.small).insert(task.release());
  ++tasks_;
  Dispatch();
  return absl::OkStatus();
}

int HostWork::threads() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(threads_.size());
}

bool HostWork::MayBeginLarge(const Tasks& tasks, const Task& task) const {
  if (large_ >= options_.max_large || tasks.begun_large >= kLargePerUser ||
      open_bytes_ + task.bytes > options_.max_open_bytes) {
    return false;
  }
  // A user's first large message may be of any size.
  return tasks.begun_large == 0 ||
         tasks.open_bytes + task.bytes <= options_.max_open_bytes / 4;
}

HostWork::Task* HostWork::NextOf(const Tasks& tasks) const {
  if (tasks.running > 0 && tasks.running >= options_.places - 1) return nullptr;
  Task* next = nullptr;
  const auto consider = [&](const Queue& queue) {
    if (queue.empty()) return;
    if (next == nullptr || DueFirst()(*queue.begin(), next)) {
      next = *queue.begin();
    }
  };
  consider(tasks.parked);
  if (begun_ >= options_.max_threads) return next;
  consider(tasks.small);
  if (!tasks.large.empty() && MayBeginLarge(tasks, **tasks.large.begin())) {
    consider(tasks.large);
  }
  return next;
}

HostWork::Task* HostWork::ChooseNext() {
  Task* chosen = nullptr;
  double least = 0;
  for (const auto& [account, tasks] : users_) {
    Task* task = NextOf(tasks);
    if (task == nullptr) continue;
    const double wanted =
        kSecondsPerTask + kSecondsPerByte * static_cast<double>(task->bytes);
    const double rank = share_.Rank(account->flows[0], wanted);
    if (chosen != nullptr &&
        (rank > least || (rank == least && task->due > chosen->due))) {
      continue;
    }
    chosen = task;
    least = rank;
  }
  return chosen;
}

void HostWork::Begin(Task* task) {
  Tasks& tasks = users_[task->account];
  ++begun_;
  if (task->large()) {
    tasks.large.erase(task);
    ++large_;
    ++tasks.begun_large;
    open_bytes_ += task->bytes;
    tasks.open_bytes += task->bytes;
  } else {
    tasks.small.erase(task);
  }
  ready_.emplace_back(task);
  if (idle_threads_ < static_cast<int>(ready_.size())) AddThread();
  ready_changed_.NotifyOne();
}

void HostWork::Dispatch() {
  for (const auto& [account, tasks] : users_) {
    share_.SetActive(&account->flows[0], !tasks.empty());
  }
  while (running_ < options_.places) {
    Task* next = ChooseNext();
    if (next == nullptr) return;
    Tasks& tasks = users_[next->account];
    ++running_;
    ++tasks.running;
    if (tasks.parked.erase(next) == 0) {
      Begin(next);
    } else {
      next->may_run = true;
      resumed_.NotifyAll();
    }
  }
}

double HostWork::Charge(Task* task) {
  const double used = ThreadSeconds();
  const double seconds = used - std::exchange(task->used_before, used);
  task->due += kDelayPerSecond * seconds;
  share_.Charge(&task->account->flows[0], seconds);
  return seconds;
}

void HostWork::Park(Task* task) {
  if (clock_->Seconds() - task->turn_began < options_.turn) return;
  double seconds = 0;
  {
    MutexLock lock(&mutex_);
    seconds = Charge(task);
    Tasks& tasks = users_[task->account];
    --running_;
    --tasks.running;
    tasks.parked.insert(task);
    task->may_run = false;
    Dispatch();  // perhaps to the same task
  }
  accounts_->ChargeHost(*task->user, Priority::kInteractive, seconds);
  MutexLock lock(&mutex_);
  resumed_.Wait(&mutex_, [task] { return task->may_run; });
  task->turn_began = clock_->Seconds();
}

void HostWork::RunOne(std::unique_ptr<Task> task) {
  task->turn_began = clock_->Seconds();
  task->used_before = ThreadSeconds();
  Then then;
  {
    TaskParking parking(this, task.get());
    const ScopedParking watch(&parking);
    then =
        task->work(task->needs_budget ? accounts_->CheckBudgetLeft(*task->user)
                                      : absl::OkStatus());
    task->work = nullptr;  // what it held goes before its bytes
  }
  double seconds = 0;
  {
    MutexLock lock(&mutex_);
    seconds = Charge(task.get());
    Tasks& tasks = users_[task->account];
    --running_;
    --tasks.running;
    --begun_;
    ++idle_threads_;
    if (task->large()) {
      --large_;
      --tasks.begun_large;
      open_bytes_ -= task->bytes;
      tasks.open_bytes -= task->bytes;
    }
    Dispatch();
  }
  accounts_->ChargeHost(*task->user, Priority::kInteractive, seconds);
  if (then != nullptr) then();
  task = nullptr;
  MutexLock lock(&mutex_);
  if (--tasks_ == 0 && stopping_) ready_changed_.NotifyAll();
}

void HostWork::Loop() {
  for (;;) {
    std::unique_ptr<Task> task;
    {
      MutexLock lock(&mutex_);
      ready_changed_.Wait(
          &mutex_, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
            return (stopping_ && tasks_ == 0) || !ready_.empty();
          });
      --idle_threads_;
      if (ready_.empty()) return;
      task = std::move(ready_.front());
      ready_.pop_front();
    }
    RunOne(std::move(task));
  }
}

}  // namespace qk
