// The requests in the scheduler, waiting and running, the queue of each flow,
// and the users' accounts.
#ifndef QKSCOPE_SERVER_SCHEDULE_REQUEST_TABLE_H_
#define QKSCOPE_SERVER_SCHEDULE_REQUEST_TABLE_H_

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/schedule/blocked_models.h"
#include "server/schedule/fair_share.h"
#include "server/schedule/listing.h"
#include "server/schedule/positions.h"
#include "server/schedule/queued_request.h"
#include "server/schedule/queued_run.h"
#include "server/schedule/scheduler_observer.h"

namespace qk {

// Not thread-safe: RequestQueue's lock guards it. RequestQueue describes the
// functions that it has, too.
class RequestTable {
 public:
  using Requests = std::vector<std::shared_ptr<ScheduledRequest>>;

  // `turn`: see FairShare.
  RequestTable(double turn, SchedulerObserver* observer)
      : observer_(observer), share_(turn) {}

  // nullptr: the request has no waiting or active runs.
  QueuedRequest* Find(const ScheduledRequest* request) const;
  // `arrival`: List sorts requests by this number.
  QueuedRequest* Add(const std::shared_ptr<ScheduledRequest>& request,
                     absl::Time now, uint64_t arrival);
  void AddRuns(QueuedRequest* queued, std::vector<ScheduledRun> runs);

  std::vector<const Model*> NextModels(
      const std::deque<QueuedRequest*>& requests);
  std::optional<QueuedRun> Take(QueuedRequest* queued, const Model* model,
                                int64_t max_rows, bool* too_long);
  void Admit(const QueuedRun& run, const Model* model);
  bool PutBack(QueuedRun* run, const Model* model);
  void Refuse(const QueuedRun& run, const Model* model);

  // Call when an admitted run of the request, which held so much, has ended.
  void EndRun(absl::Time now, QueuedRequest* queued, int64_t memory_bytes);
  // Removes and returns the waiting runs of a cancelled request. nullopt: Find
  // would return nullptr.
  std::optional<std::deque<ScheduledRun>> TakeWaiting(
      const ScheduledRequest* request);
  // Erases and returns the requests that have no run left. The caller must
  // destroy them without the lock.
  Requests TakeEmpty();
  // Uncounts a waiting request whose place another one gets. The caller must
  // cancel it.
  void GiveWay(QueuedRequest* queued) { StopWaiting(queued); }
  // Call when runs may find room (RunRoom) that had none.
  void RoomFreed();
  // Call when the request's call has ended.
  void EndCall(const ScheduledRequest* request);

  void ChargeDevice(absl::Time now, QueuedRequest* queued, double seconds);
  void ChargeHost(absl::Time now, const User& user, Priority priority,
                  double seconds);
  void ChargeBytes(absl::Time now, const User& user, Priority priority,
                   int64_t bytes);

  // Tells requests their positions, and the observer the number of requests.
  void TellPositions(absl::Time now);

  const std::list<QueuedRequest>& requests() const { return requests_; }
  std::list<QueuedRequest>& mutable_requests() { return requests_; }
  // For each flow, its requests with waiting runs, the next one first.
  const std::map<Flow*, std::deque<QueuedRequest*>>& queues() const {
    return queues_;
  }
  FairShare& share() { return share_; }

  int waiting() const { return waiting_; }
  int running() const {
    return static_cast<int>(by_request_.size()) - waiting_;
  }
  int64_t WaitingRows() const;
  std::vector<ListedRequest> List() const;
  std::shared_ptr<ScheduledRequest> FindById(const std::string& id) const;
  std::vector<UserState> Users(absl::Time now);
  // Without the limit.
  SchedulerLoad Load(absl::Time now);

 private:
  // A request whose call has not ended.
  struct InFlight {
    std::weak_ptr<ScheduledRequest> request;
    Account* account;
    absl::Time submitted;
    uint64_t arrival;
  };

  // Counts the request as waiting since now, or as running.
  void SetWaiting(absl::Time now, QueuedRequest* queued);
  void StopWaiting(QueuedRequest* queued);
  // Counts the request neither as waiting nor as running from now on.
  void StopCounting(QueuedRequest* queued);
  // Makes the next TakeEmpty check the request.
  void MarkMaybeEmpty(QueuedRequest* queued);
  void RemoveFromQueue(QueuedRequest* queued);

  SchedulerObserver* const observer_;
  std::list<QueuedRequest> requests_;  // by arrival
  std::map<const ScheduledRequest*, QueuedRequest*> by_request_;
  std::map<const ScheduledRequest*, InFlight> in_flight_;
  std::map<Flow*, std::deque<QueuedRequest*>> queues_;
  int waiting_ = 0;  // requests without an active run
  std::vector<QueuedRequest*> maybe_empty_;
  FairShare share_;
  BlockedModels blocked_;
  Positions positions_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_REQUEST_TABLE_H_
