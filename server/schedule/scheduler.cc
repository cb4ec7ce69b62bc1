#include "server/schedule/scheduler.h"

namespace qk {

Scheduler::Scheduler(const SchedulerOptions& options, Device* device,
                     SchedulerObserver* observer, const Clock* clock)
    : queue_(options, &row_time_, observer, clock),
      active_(&queue_, clock),
      planner_(options, device, clock, &row_time_, &queue_, &active_),
      runner_(options.slice, clock, &row_time_, observer, &queue_, &active_) {
  if (options.own_thread) thread_ = std::thread([this] { Loop(); });
}

Scheduler::~Scheduler() {
  queue_.StopAdmission();
  queue_.CancelAll(absl::UnavailableError("server is shutting down"));
  queue_.Stop();
  absl::Time wake;
  if (thread_.joinable()) {
    thread_.join();
  } else {
    while (RunNextSlice(&wake)) {
    }
  }
}

void Scheduler::Loop() {
  absl::Time wake = absl::InfiniteFuture();
  bool busy = false;
  while (queue_.WaitForWork(busy, wake, active_.runs().empty())) {
    busy = RunNextSlice(&wake);
  }
}

bool Scheduler::RunNextSlice(absl::Time* wake) {
  *wake = absl::InfiniteFuture();
  active_.EndCancelled();
  LivePass* live = planner_.Choose(wake);
  if (live == nullptr) return false;
  runner_.RunSlice(live);
  return true;
}

}  // namespace qk
