// Decides which flow uses the device next: fair queueing by measured cost, in
// turns.
//
// A flow is one user's requests of one class. Its virtual time grows by its
// cost divided by its weight. A turn is the device time that a flow may use
// without interruption, so that a short request is not split among the long
// requests of others. The next flow is the one that would finish first, either
// its turn or, if that is less, all its work (Demers, Keshav and Shenker 1989):
// among flows with equal virtual time, one with little work does not wait for
// the turns of the others.
//
// A flow that becomes active again starts at the virtual time of the other
// flows, or at its own if that is later (Goyal et al. 1996); an interactive
// flow gets a head start of two turns. So no flow can save up device time, no
// flow exceeds its share by more than the head start and the current turn, and
// a single active flow gets the whole device. When no flow is active, all start
// level again.
#ifndef QKSCOPE_SERVER_SCHEDULE_FAIR_SHARE_H_
#define QKSCOPE_SERVER_SCHEDULE_FAIR_SHARE_H_

#include <map>
#include <memory>
#include <string>

#include "server/common/priority.h"
#include "server/common/user.h"
#include "server/schedule/usage_hold.h"
#include "server/schedule/usage_window.h"

namespace qk {

// The weight of a batch flow relative to an interactive one of the same user:
// batch work yields to interactive work, but never stops.
inline constexpr double kBatchShare = 1.0 / 8;

// One user's requests of one class.
struct Flow {
  Priority priority = Priority::kInteractive;
  struct Account* account = nullptr;
  double virtual_time = 0;  // seconds
  double turn_began = 0;    // virtual time
  bool fresh = false;       // in the first turn since it became active
  bool active = false;      // has work that may run now
};

// One user.
struct Account {
  std::string alias;
  double weight = 1;
  UserRole role = UserRole::kUser;
  UserBudget budget;
  Flow flows[kNumPriorities];
  UsageWindow usage;
  // What requests in flight will still use.
  std::shared_ptr<HeldUsage> held = std::make_shared<HeldUsage>();
  double device_seconds = 0;  // since the server started
  double host_seconds = 0;    // since the server started
  int64_t bytes = 0;          // since the server started
  int in_flight = 0;          // requests, including the waiting ones
  int queued = 0;             // waiting requests
  int64_t memory_bytes = 0;   // ScheduledRun::memory_bytes of active runs
};

// Not thread-safe. Accounts and flows are never moved or erased.
class FairShare {
 public:
  // `turn`: device seconds.
  explicit FairShare(double turn) : turn_(turn) {}

  double turn() const { return turn_; }

  // Returns the user's account, updated to the user's current weight and
  // budget. Creates it if necessary.
  Account* AccountOf(const User& user);
  std::map<std::string, Account>& accounts() { return accounts_; }

  void SetActive(Flow* flow, bool active);
  void Charge(Flow* flow, double cost);
  // The flow with the lowest rank goes next. `wanted`: device seconds that
  // would finish all its requests.
  double Rank(const Flow& flow, double wanted) const;
  // Virtual seconds per second of cost. A user with flows of both classes gets
  // no more in total than with the class of higher weight alone.
  static double Pace(const Flow& flow);
  // The flow's share of the device, in [0, 1], if all active flows use theirs.
  double ShareOf(const Flow& flow) const;

 private:
  double LeastTurn() const;
  // Raises floor_ to the least beginning of an active flow's turn. `last`: the
  // flow that was active last, in case none is now.
  void RaiseFloor(const Flow& last);

  std::map<std::string, Account> accounts_;
  const double turn_;
  double floor_ = 0;  // virtual time at which a newly active flow starts
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_FAIR_SHARE_H_
