// Tells waiting requests their place in the queue.
#ifndef QKSCOPE_SERVER_SCHEDULE_POSITIONS_H_
#define QKSCOPE_SERVER_SCHEDULE_POSITIONS_H_

#include <list>

#include "absl/time/time.h"

namespace qk {

struct QueuedRequest;

// Not thread-safe.
class Positions {
 public:
  // Requests are numbered in the order in which they would start if all flows
  // took turns. With many of them waiting, they are told less often.
  void Tell(absl::Time now, int waiting, std::list<QueuedRequest>* requests);

 private:
  absl::Time told_ = absl::InfinitePast();
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_POSITIONS_H_
