// One thread per device that forms ragged batches from all waiting runs (arms
// and users alike) and calls passes step by step.
//
// Fair share: the flow (a user's requests of one class) that has had least for
// its weight, and would be through first, goes next (fair_share.h); within a
// flow first come first served,
// one run of each request in turn. Others' runs join a pass as long as they do
// not make it much longer.
//
// Slices: a pass runs for at most `slice` (or one step) before the choice is
// made anew; one that was to be over by then gets as long again, for its rest
// would wait for everybody's turn. A long prompt is thus parked between two
// steps while others pass; a parked pass holds its hidden rows and nothing of
// the device.
//
// Cancellation and deadlines are looked at between steps, for parked passes
// too. Knows nothing of gRPC: tests run it with a made-up device, clock and
// runs.
#ifndef QKSCOPE_SERVER_SCHEDULE_SCHEDULER_H_
#define QKSCOPE_SERVER_SCHEDULE_SCHEDULER_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/run/run.h"
#include "server/schedule/clock.h"
#include "server/schedule/device.h"
#include "server/schedule/fair_share.h"
#include "server/schedule/scheduled_request.h"

namespace qk {

struct SchedulerOptions {
  int max_queued_requests = 256;
  int max_rows_per_pass = 4096;
  // Rows of a pass that is not of one run alone. Of more, a pass takes memory
  // that is not in the estimates of several small runs (Batch::kStepRows).
  int max_rows_per_flow = 512;
  // How long a pass goes on before others are looked at.
  absl::Duration slice = absl::Milliseconds(100);
  // The longest that an idle device waits for others to come with a request.
  absl::Duration max_gather = absl::Microseconds(400);
  // False: no thread; a simulation calls Step.
  bool own_thread = true;
};

// Called on the scheduler's thread (OnQueue: on any).
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnPass(const Model& model, int rows, int sequences,
                      double seconds, const absl::Status& status) = 0;
  virtual void OnQueue(int waiting_requests, int running_requests) = 0;
  // A cancelled request's memory is free, so long after the cancellation.
  virtual void OnCancelled(double seconds) = 0;
};

// When a budget that refused a request will have room for it; nullopt: the
// refusal is none of a budget's. InfiniteDuration: never.
std::optional<absl::Duration> BudgetRetryDelay(const absl::Status& refusal);

class Scheduler {
 public:
  // All outlive the scheduler.
  Scheduler(const SchedulerOptions& options, Device* device,
            SchedulerObserver* observer, const Clock* clock);
  // Cancels what is left.
  ~Scheduler();

  // RESOURCE_EXHAUSTED `queue full (8/8)` or a limit of the user's budget (then
  // with RetryDelay), UNAVAILABLE when draining, or why the request was
  // cancelled; the runs are then gone without a word to their sinks. A request
  // that has runs in the scheduler is never refused for the queue's length.
  absl::Status Submit(const std::shared_ptr<ScheduledRequest>& request,
                      std::vector<ScheduledRun> runs);
  // Bytes that left for a client of the user's: part of its cost.
  void ChargeBytes(const User& user, Priority priority, int64_t bytes);

  struct State {
    int waiting_requests = 0;
    int running_requests = 0;
    int64_t rows_ahead = 0;      // prefill rows of all of them
    double seconds_per_row = 0;  // of late
  };
  State state() const;

  struct Listed {
    RequestInfo info;
    bool running = false;
    bool streaming = false;  // through, but for its reader
    int position = 0;
    absl::Time submitted;
    absl::Time started;
    double device_seconds = 0;
  };
  // Requests whose calls have not ended, by arrival.
  std::vector<Listed> List() const;
  // nullptr: no such request here.
  std::shared_ptr<ScheduledRequest> Find(const std::string& id) const;

  struct UserState {
    std::string alias;
    double weight = 1;
    UserBudget budget;
    Usage window;               // now
    double device_seconds = 0;  // ever
    int64_t bytes = 0;          // ever
    int in_flight = 0;
    int queued = 0;
    double share = 0;  // of the device, in [0, 1]; 0: wants nothing now
  };
  // Everybody who has sent a request.
  std::vector<UserState> Users();

  // From now on Submit fails with UNAVAILABLE `server is shutting down`.
  void StopAdmission();
  // False: the deadline came first.
  bool WaitUntilIdle(absl::Time deadline);
  void CancelAll(const absl::Status& reason);

  // Without a thread of its own: one slice, or what else is to be done now.
  // False: there was nothing; `*wake` says when there may be.
  bool Step(absl::Time* wake);

 private:
  class Listener;

  // A request with runs here. Erased by the scheduler's thread only.
  struct Entry {
    std::shared_ptr<ScheduledRequest> request;
    Flow* flow = nullptr;
    std::deque<ScheduledRun> waiting;
    int active = 0;
    bool reserving = false;  // its front run is off the deque for a moment
    bool waits = false;      // counted as waiting: nothing of it is active
    bool gone = false;       // cancelled with nothing active; counts no more
    int position = -1;       // as last told
    absl::Time submitted;
    std::list<Entry>::iterator self;
    bool ending = false;  // in ending_
  };
  // A run that holds memory of the device.
  struct Active {
    Entry* entry;
    ScheduledRun scheduled;
    double seconds = 0;  // of the device, so far
    bool in_pass = false;
  };
  struct PassPlan {
    const Model* model = nullptr;
    std::vector<Sequence*> sequences;
    int rows = 0;
    // Whose they are.
    struct Part {
      Active* active;
      std::vector<Sequence*> sequences;
      int rows = 0;
    };
    std::vector<Part> parts;
  };
  // A pass in progress.
  struct LivePass {
    PassPlan plan;
    std::unique_ptr<DevicePass> pass;
    double seconds = 0;
    uint64_t turn = 0;      // when it last ran
    bool long_one = false;  // longer than a slice
    bool compares = false;  // a run's comparison, which is no pass of a model
  };
  // What a flow could do next.
  struct FlowWork {
    std::deque<Active*> idle;   // runs that want another pass
    std::deque<Entry*> fronts;  // of its queue, the first few
    LivePass* pass = nullptr;   // that ran longest ago
    bool has_long_pass = false;
    double wanted = 0;        // seconds, about, up to where it matters no more
    double virtual_time = 0;  // with what the plan will cost
    double rank = 0;          // the least goes next
    double pace = 1;          // virtual seconds a second
    uint64_t last = 0;        // turn
  };
  using Work = std::map<Flow*, FlowWork>;
  // A flow's turns, in a count over all slices.
  struct Turns {
    uint64_t last = 0;      // any slice of it
    uint64_t last_new = 0;  // a new pass
    // A waiting run was too long to join the flow's last pass: it goes next.
    bool owes_waiting = false;
  };
  // The run that found no memory; until it does, nobody else of the model is
  // admitted.
  struct Blocked {
    Entry* entry = nullptr;
    uint64_t runs_ended = 0;  // by then; no use to try before that grows
  };

  void Loop();

  // --- scheduler.cc; with mutex_ held
  absl::Duration GatherTime() const;
  void SetWaiting(Entry* entry, bool waiting);
  void TellPositions();
  void LeaveCounts(Entry* entry);
  void MayBeEmpty(Entry* entry);
  void EraseEmptyEntries();

  // --- scheduler_admit.cc; with mutex_ held
  absl::Status CheckAdmission(Account* account,
                              const std::vector<ScheduledRun>& runs);

  // --- scheduler_end.cc: how runs end
  // Deadlines and cancellations, if there are any new.
  void Sweep();
  void EndCancelled();
  // Any thread: what of the request waits is over.
  void DropWaiting(ScheduledRequest* request);
  void OnGone(ScheduledRequest* request);
  void DropFinished();
  void Forget(ScheduledRun run, Entry* entry);

  // --- scheduler_plan.cc: what runs next
  // The pass that is to run, a new one if that is its flow's turn; nullptr:
  // nothing can run before `*wake`.
  LivePass* ChoosePass(absl::Time* wake);
  Work FindWork(absl::Time* wake);
  LivePass* StartPass(Flow* first, Work* work);
  LivePass* StartComparison(FlowWork* work);
  const Model* ChooseModel(const FlowWork& work);
  // Adds the flow's next run to the plan; false: none of it can join.
  bool PlanNext(Flow* flow, int limit, FlowWork* work, PassPlan* plan);
  bool PlanIdle(int limit, FlowWork* work, PassPlan* plan);
  bool PlanWaiting(Flow* flow, int limit, FlowWork* work, PassPlan* plan);
  bool MayAdmit(Entry* entry, const Model* model);
  ScheduledRun TakeFront(Entry* entry);
  Active* TryAdmit(Entry* entry, ScheduledRun run);
  bool AddSequences(Active* active, int limit, PassPlan* plan);
  // Rows that a slice is enough for.
  int SliceRows() const;
  // Of the device, for all of it, about; 0 before anything was measured.
  double SecondsOf(const ScheduledRun& run) const;

  // --- scheduler_pass.cc
  void RunSlice(LivePass* live);
  void Charge(const PassPlan& plan, double seconds);
  void ChargeRun(Active* active, double seconds);
  void FinishPass(LivePass* live, const absl::Status& status);

  const SchedulerOptions options_;
  Device* const device_;
  SchedulerObserver* const observer_;
  const Clock* const clock_;
  const std::shared_ptr<Listener> listener_;
  std::atomic<uint64_t> cancellations_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Entry> entries_;  // by arrival
  std::map<const ScheduledRequest*, Entry*> by_request_;
  // In flight: all whose calls have not ended.
  struct Known {
    std::weak_ptr<ScheduledRequest> request;
    Account* account;
    absl::Time submitted;
    uint64_t arrival;
  };
  std::map<ScheduledRequest*, Known> known_;
  // Entries with waiting runs, in their turn.
  std::map<Flow*, std::deque<Entry*>> queues_;
  int waiting_ = 0;             // entries with nothing active
  std::vector<Entry*> ending_;  // that may have nothing left
  FairShare share_;
  bool admitting_ = true;
  bool stopping_ = false;
  double seconds_per_row_ = 0;  // of passes of many rows
  std::atomic<absl::Time> next_deadline_ = absl::InfiniteFuture();
  absl::Time positions_told_ = absl::InfinitePast();
  std::atomic<uint64_t> arrivals_ = 0;

  // The scheduler thread's own.
  std::vector<std::unique_ptr<Active>> active_;  // by admission
  std::list<LivePass> passes_;
  std::map<const Model*, uint64_t> last_served_;
  std::map<Flow*, Turns> turns_;
  std::map<const Model*, Blocked> blocked_;
  uint64_t turn_ = 0;
  uint64_t runs_ended_ = 0;
  // Erased entries' requests, to be let go without the lock.
  std::vector<std::shared_ptr<ScheduledRequest>> let_go_;
  std::atomic<uint64_t> seen_cancellations_ = 0;

  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_SCHEDULER_H_
