// What the scheduler tells of itself, its requests and its users.
#ifndef QKSCOPE_SERVER_SCHEDULE_LISTING_H_
#define QKSCOPE_SERVER_SCHEDULE_LISTING_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "server/common/user.h"
#include "server/schedule/scheduled_request.h"
#include "server/schedule/usage_window.h"

namespace qk {

struct SchedulerState {
  int waiting_requests = 0;
  int running_requests = 0;
  int64_t rows_ahead = 0;      // prefill rows of all waiting runs
  double seconds_per_row = 0;  // measured lately; 0: not yet
};

// A request whose call has not ended.
struct ListedRequest {
  RequestInfo info;
  bool running = false;
  bool streaming = false;  // its runs are done; its reader is not
  int position = 0;
  absl::Time submitted;
  absl::Time started;
  double device_seconds = 0;
};

struct UserState {
  std::string alias;
  double weight = 1;
  UserBudget budget;
  Usage window;               // now
  double device_seconds = 0;  // ever
  int64_t bytes = 0;          // ever
  int in_flight = 0;
  int queued = 0;
  double share = 0;  // of the device, in [0, 1]; 0: no work at the moment
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_LISTING_H_
