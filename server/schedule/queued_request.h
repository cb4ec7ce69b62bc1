// A request that has runs in the scheduler. Everything here is guarded by the
// lock of RequestQueue, whose parts alone include this header; others hold
// pointers only.
#ifndef QKSCOPE_SERVER_SCHEDULE_QUEUED_REQUEST_H_
#define QKSCOPE_SERVER_SCHEDULE_QUEUED_REQUEST_H_

#include <deque>
#include <list>
#include <memory>

#include "server/schedule/fair_share.h"
#include "server/schedule/scheduled_request.h"

namespace qk {

struct QueuedRequest {
  std::shared_ptr<ScheduledRequest> request;
  Flow* flow = nullptr;
  std::deque<ScheduledRun> waiting;
  int active = 0;            // runs that hold memory of the device
  bool reserving = false;    // its next run is asking for memory
  bool waits = false;        // counted as waiting: none of its runs is active
  bool ended = false;        // cancelled or done: it counts no more
  bool maybe_empty = false;  // in RequestTable::maybe_empty_
  int position = -1;         // as last told
  std::list<QueuedRequest>::iterator self;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_QUEUED_REQUEST_H_
