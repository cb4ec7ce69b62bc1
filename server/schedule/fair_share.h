// Who is to have the device next: fair queueing by measured cost, in turns.
// Every flow, one user's requests of one class, has a virtual time that its
// cost over its weight moves on. A flow's turn is some device time that it may
// take in one go, so that a short request is not torn up among others' long
// ones. The flow goes next that would be through first, with its turn or, if
// that is less, with all that it wants (Demers, Keshav and Shenker 1989): of
// several that had as much as one another the one with little to do does not
// wait for everybody's turn. A flow that comes back after a pause starts where
// the others are, or where it was if that is further on (Goyal et al. 1996), an
// interactive one with a head start of two turns: nobody saves up time, nobody
// is ahead of his share by more than that and the turn he is in, and one flow
// alone gets everything. With nobody active all are level again.
#ifndef QKSCOPE_SERVER_SCHEDULE_FAIR_SHARE_H_
#define QKSCOPE_SERVER_SCHEDULE_FAIR_SHARE_H_

#include <map>
#include <string>

#include "server/common/priority.h"
#include "server/common/user.h"
#include "server/schedule/usage_window.h"

namespace qk {

// A batch flow's weight beside an interactive one of the same user weight:
// batch work gives way, but never stands still.
inline constexpr double kBatchShare = 1.0 / 8;

// One user's requests of one class.
struct Flow {
  Priority priority = Priority::kInteractive;
  struct Account* account = nullptr;
  double virtual_time = 0;  // seconds
  double turn_began = 0;    // virtual time
  bool fresh = false;       // comes from a pause, in its first turn
  bool active = false;      // has work that may go on now
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
  int in_flight = 0;          // requests, waiting ones too
  int queued = 0;             // the waiting ones
};

// Not thread-safe. Accounts stay where they are.
class FairShare {
 public:
  // `turn`: device seconds.
  explicit FairShare(double turn) : turn_(turn) {}

  double turn() const { return turn_; }

  // The user's account, made if it is new; takes the user's present weight and
  // budget.
  Account* Of(const User& user);
  std::map<std::string, Account>& accounts() { return accounts_; }

  void SetActive(Flow* flow, bool active);
  void Charge(Flow* flow, double cost);
  // The least goes next. `wanted`: seconds of the device that would do for all
  // of the flow's requests.
  double Rank(const Flow& flow, double wanted) const;
  // Virtual seconds per second of cost. A user with flows of both classes has
  // no more in all than with the better one alone.
  static double Pace(const Flow& flow);
  // The flow's share of the device if all active flows want it, in [0, 1].
  double ShareOf(const Flow& flow) const;

 private:
  double LeastTurn() const;
  // To where the active ones are.
  void RaiseFloor(const Flow& last);

  std::map<std::string, Account> accounts_;
  const double turn_;
  double floor_ = 0;  // virtual time that a newly active flow starts from
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_FAIR_SHARE_H_
