// One thread per device that forms ragged batches from all waiting runs (arms
// and users alike) and calls passes layer by layer.
//
// Admission is FIFO over requests, one run of each in turn, so that a request
// of many runs does not shut out those behind it. Passes go round robin over
// models. Cancellation and deadlines are looked at between layers.
//
// Knows nothing of gRPC: tests run it with a made-up device and runs.
#ifndef QKSCOPE_SERVER_SCHEDULER_H_
#define QKSCOPE_SERVER_SCHEDULER_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/run.h"
#include "server/device.h"

namespace qk {

// One request, which may submit runs over time. Thread-safe.
class ScheduledRequest {
 public:
  // `on_position`: the request's place among the waiting ones, 0 for the next
  // and for a running one. Called when it changes, under the scheduler's lock:
  // it must not block or call the scheduler.
  ScheduledRequest(absl::Time deadline, std::function<void(int)> on_position)
      : deadline_(deadline), on_position_(std::move(on_position)) {}

  // Ends all its runs, between two layers, with `reason`. Only the first call
  // counts.
  void Cancel(const absl::Status& reason);
  absl::Status cancelled() const;
  // When its first run got onto the device; InfiniteFuture before.
  absl::Time started() const;

 private:
  friend class Scheduler;

  const absl::Time deadline_;
  const std::function<void(int)> on_position_;
  mutable std::mutex mutex_;
  absl::Status cancelled_;
  absl::Time started_ = absl::InfiniteFuture();
  std::vector<Run*> runs_;  // alive
};

struct ScheduledRun {
  // Outlives `run`: its sink.
  std::shared_ptr<void> keep_alive;
  std::unique_ptr<Run> run;
  int64_t prefill_rows = 0;
};

struct SchedulerOptions {
  int max_queued_requests = 256;
  int max_rows_per_pass = 4096;
};

// Called on the scheduler's thread (OnQueue: on any).
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnPass(const Model& model, int rows, int sequences,
                      double seconds, const absl::Status& status) = 0;
  virtual void OnQueue(int waiting_requests, int running_requests) = 0;
};

class Scheduler {
 public:
  // Both outlive the scheduler.
  Scheduler(const SchedulerOptions& options, Device* device,
            SchedulerObserver* observer);
  // Cancels what is left.
  ~Scheduler();

  // RESOURCE_EXHAUSTED `queue full (8/8)`, UNAVAILABLE when draining, or why
  // the request was cancelled; the runs are then gone without a word to their
  // sinks. A request that has runs in the scheduler is never refused for the
  // queue's length.
  absl::Status Submit(const std::shared_ptr<ScheduledRequest>& request,
                      std::vector<ScheduledRun> runs);

  struct State {
    int waiting_requests = 0;
    int running_requests = 0;
    int64_t rows_ahead = 0;      // prefill rows of all of them
    double seconds_per_row = 0;  // of late
  };
  State state() const;

  // From now on Submit fails with UNAVAILABLE `server is shutting down`.
  void StopAdmission();
  // False: the deadline came first.
  bool WaitUntilIdle(absl::Time deadline);
  void CancelAll(const absl::Status& reason);

 private:
  // A request with runs here. Erased by the scheduler's thread only.
  struct Entry {
    std::shared_ptr<ScheduledRequest> request;
    std::deque<ScheduledRun> waiting;
    int active = 0;
    bool reserving = false;  // its front run is off the deque for a moment
    int position = -1;       // as last told
  };
  // A run that holds memory of the device.
  struct Active {
    Entry* entry;
    ScheduledRun scheduled;
    bool in_pass = false;
  };
  struct PassPlan {
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

  void Loop();
  // Waits for work; false: stop.
  bool WaitForWork();
  // Deadlines, and runs that were cancelled while no pass holds them.
  void Sweep();
  const Model* ChooseModel();
  PassPlan MakePlan(const Model* model);
  bool TryAdmit(Entry* entry, const Model* model, PassPlan* plan,
                bool* out_of_memory);
  void AddSequences(Active* active, PassPlan* plan);
  void RunPass(PassPlan* plan);
  void FinishPass(const PassPlan& plan, const absl::Status& status,
                  double seconds);
  void DropFinished();
  void Forget(ScheduledRun run, Entry* entry);
  Run* Front(Entry* entry);
  std::vector<Entry*> Entries();
  // With mutex_ held.
  int CountWaiting() const;
  void TellPositions();
  void EraseEmptyEntries();

  const SchedulerOptions options_;
  Device* const device_;
  SchedulerObserver* const observer_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Entry> entries_;  // by arrival
  bool admitting_ = true;
  bool stopping_ = false;
  double seconds_per_row_ = 0;

  // The scheduler thread's own.
  std::vector<std::unique_ptr<Active>> active_;  // by admission
  std::map<const Model*, uint64_t> last_served_;
  uint64_t passes_ = 0;

  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULER_H_
