// A run that has left the queue, with its request and flow.
#ifndef QKSCOPE_SERVER_SCHEDULE_QUEUED_RUN_H_
#define QKSCOPE_SERVER_SCHEDULE_QUEUED_RUN_H_

#include "server/schedule/scheduled_request.h"

namespace qk {

struct Flow;
struct QueuedRequest;

// `queued` and `request` live until RequestQueue::EndRuns or Refuse.
struct QueuedRun {
  QueuedRequest* queued = nullptr;
  ScheduledRequest* request = nullptr;
  Flow* flow = nullptr;
  ScheduledRun scheduled;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_QUEUED_RUN_H_
