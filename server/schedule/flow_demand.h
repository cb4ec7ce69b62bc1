// Finds the flows that compete for the device, and the state of each.
#ifndef QKSCOPE_SERVER_SCHEDULE_FLOW_DEMAND_H_
#define QKSCOPE_SERVER_SCHEDULE_FLOW_DEMAND_H_

#include <deque>
#include <map>

#include "absl/time/time.h"
#include "server/schedule/row_time.h"

namespace qk {

class RequestTable;
struct Flow;
struct QueuedRequest;

struct FlowDemand {
  std::deque<QueuedRequest*> fronts;  // the first requests of its queue
  // Device seconds for all its work. The estimate stops at one turn.
  double wanted = 0;
  double virtual_time = 0;  // fair_share.h
  double rank = 0;          // the lowest goes next
  double pace = 1;          // virtual seconds per device second
  // The user's budget is used up until then: only passes and comparisons that
  // have begun go on. Now or earlier: there is budget left.
  absl::Time used_up_until = absl::InfinitePast();
};

// Returns the flows that have work: those in `running`, which has the device
// seconds that each flow's admitted runs still need, and those with queued runs
// that could start: their user has budget left, and there was room for them
// (RunRoom). Marks these flows as active and all others as inactive. Lowers
// `*wake` to the time when a budget has room again, and sets `*used_up` to the
// flows that wait for that, with the time.
std::map<Flow*, FlowDemand> FindDemand(const std::map<Flow*, double>& running,
                                       const RowTime& row_time, absl::Time now,
                                       RequestTable* table, absl::Time* wake,
                                       std::map<Flow*, absl::Time>* used_up);

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_FLOW_DEMAND_H_
