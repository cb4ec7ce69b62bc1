// Tells waiting requests their positions in the queue.
#ifndef QKSCOPE_SERVER_SCHEDULE_POSITIONS_H_
#define QKSCOPE_SERVER_SCHEDULE_POSITIONS_H_

#include <list>

#include "absl/time/time.h"

namespace qk {

struct QueuedRequest;

// Not thread-safe.
class Positions {
 public:
  // Numbers requests in the order in which they would start if the flows took
  // turns, and tells them. If many requests wait, this happens less often.
  void Tell(absl::Time now, int waiting, std::list<QueuedRequest>* requests);

 private:
  absl::Time told_ = absl::InfinitePast();
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_POSITIONS_H_
