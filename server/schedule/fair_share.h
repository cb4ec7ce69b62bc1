// Which flow has the device next: fair queueing by measured cost, in turns.
//
// A flow is one user's requests of one class. Its virtual time grows by what it
// costs, divided by its weight. A turn is device time that a flow may take in
// one go, so that a short request is not cut up among the long ones of others.
// The flow goes next that would finish first, either its turn or, if that is
// less, all its work (Demers, Keshav and Shenker 1989): among flows that have
// had equally much, one with little work does not wait for everybody's turn.
//
// A flow that returns after a pause starts at the virtual time of the others,
// or at its own if that is later (Goyal et al. 1996); an interactive flow gets
// a head start of two turns. So nobody saves up device time, nobody is ahead of
// their share by more than the head start and the current turn, and a flow that
// is alone gets everything. When no flow is active, all are level again.
#ifndef QKSCOPE_SERVER_SCHEDULE_FAIR_SHARE_H_
#define QKSCOPE_SERVER_SCHEDULE_FAIR_SHARE_H_

#include <map>
#include <string>

#include "server/common/priority.h"
#include "server/common/user.h"
#include "server/schedule/usage_window.h"

namespace qk {

// The weight of a batch flow relative to an interactive one of the same user:
// batch work gives way, but never stops.
inline constexpr double kBatchShare = 1.0 / 8;

// One user's requests of one class.
struct Flow {
  Priority priority = Priority::kInteractive;
  struct Account* account = nullptr;
  double virtual_time = 0;  // seconds
  double turn_began = 0;    // virtual time
  bool fresh = false;       // in its first turn after a pause
  bool active = false;      // has work that may run now
};

// One user.
struct Account {
  std::string alias;
  double weight = 1;
  UserBudget budget;
  Flow flows[kNumPriorities];
  UsageWindow usage;
  double device_seconds = 0;  // ever
  int64_t bytes = 0;          // ever
  int in_flight = 0;          // requests, including the waiting ones
  int queued = 0;             // requests that wait
};

// Not thread-safe. Accounts and flows are never moved or erased.
class FairShare {
 public:
  // `turn`: device seconds.
  explicit FairShare(double turn) : turn_(turn) {}

  double turn() const { return turn_; }

  // The user's account, a new one if need be, with the user's current weight
  // and budget.
  Account* AccountOf(const User& user);
  std::map<std::string, Account>& accounts() { return accounts_; }

  void SetActive(Flow* flow, bool active);
  void Charge(Flow* flow, double cost);
  // The flow with the least rank goes next. `wanted`: device seconds that would
  // finish all its requests.
  double Rank(const Flow& flow, double wanted) const;
  // Virtual seconds per second of cost. A user with flows of both classes gets
  // no more in all than with the better one alone.
  static double Pace(const Flow& flow);
  // The flow's share of the device if all active flows want it, in [0, 1].
  double ShareOf(const Flow& flow) const;

 private:
  double LeastTurn() const;
  // Raises it to where the active flows are.
  void RaiseFloor(const Flow& last);

  std::map<std::string, Account> accounts_;
  const double turn_;
  double floor_ = 0;  // virtual time at which a newly active flow starts
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_FAIR_SHARE_H_
