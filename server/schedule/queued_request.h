// A request that has runs in the scheduler. RequestQueue's lock guards all
// members. Only the parts of RequestQueue include this header; others hold
// pointers.
#ifndef QKSCOPE_SERVER_SCHEDULE_QUEUED_REQUEST_H_
#define QKSCOPE_SERVER_SCHEDULE_QUEUED_REQUEST_H_

#include <deque>
#include <list>
#include <memory>

#include "absl/time/time.h"
#include "server/schedule/fair_share.h"
#include "server/schedule/scheduled_request.h"

namespace qk {

struct QueuedRequest {
  std::shared_ptr<ScheduledRequest> request;
  Flow* flow = nullptr;
  std::deque<ScheduledRun> waiting;
  int active = 0;            // runs that hold device memory
  bool reserving = false;    // its next run is reserving memory
  bool no_room = false;      // there was none for its next run (RunRoom)
  bool waits = false;        // counted as waiting: none of its runs is active
  bool ended = false;        // cancelled or done: no longer counted
  bool maybe_empty = false;  // in RequestTable::maybe_empty_
  int position = -1;         // the last one told to the request
  absl::Time waits_since;    // if it waits
  std::list<QueuedRequest>::iterator self;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_QUEUED_REQUEST_H_
