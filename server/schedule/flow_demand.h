// Which flows compete for the device, and how each of them stands.
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
  std::deque<QueuedRequest*> fronts;  // of its queue, the first few
  // Device seconds for all its work; not estimated beyond a turn.
  double wanted = 0;
  double virtual_time = 0;  // fair_share.h
  double rank = 0;          // the least goes next
  double pace = 1;          // virtual seconds per device second
};

// The flows that have work: those in `running`, each with the device seconds
// that its admitted runs still want, and those with runs in the queue whose
// user has budget left. The others are marked as inactive. `*wake` is lowered
// to when a budget has room again.
std::map<Flow*, FlowDemand> FindDemand(const std::map<Flow*, double>& running,
                                       const RowTime& row_time, absl::Time now,
                                       RequestTable* table, absl::Time* wake);

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_FLOW_DEMAND_H_
