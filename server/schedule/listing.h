// Snapshots of the scheduler, its requests and its users.
#ifndef QKSCOPE_SERVER_SCHEDULE_LISTING_H_
#define QKSCOPE_SERVER_SCHEDULE_LISTING_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/common/user.h"
#include "server/schedule/scheduled_request.h"
#include "server/schedule/usage_window.h"

namespace qk {

struct SchedulerState {
  int waiting_requests = 0;
  int running_requests = 0;
  int64_t rows_ahead = 0;      // prefill rows of all waiting runs
  double seconds_per_row = 0;  // running mean; 0: not measured yet
};

// A request whose call has not ended.
struct ListedRequest {
  RequestInfo info;
  bool running = false;
  bool streaming = false;  // its runs have ended, its call has not
  int position = 0;
  absl::Time submitted;
  absl::Time started;
  double device_seconds = 0;
};

struct UserState {
  std::string alias;
  double weight = 1;
  UserBudget budget;
  Usage window;  // used in the window that ends now
  // Since the server started, of the device and of the host.
  double device_seconds = 0;
  double host_seconds = 0;  // the host's part of it
  int64_t bytes = 0;        // since the server started
  int in_flight = 0;
  int queued = 0;
  double share = 0;  // of the device, in [0, 1]; 0: no work now
};

// A user's part of SchedulerLoad.
struct UserLoad {
  std::string alias;
  double device_seconds = 0;  // since the server started, without the host's
  int64_t bytes = 0;          // since the server started
  int64_t memory_bytes = 0;   // an estimate of what active runs hold
  int in_flight = 0;
  // The part of the budget's device time or bytes, whichever is larger, that
  // was used in the window that ends now. nullopt: neither is limited.
  std::optional<double> budget_used;
};

// What the metrics show of the scheduler.
struct SchedulerLoad {
  int queue_limit = 0;  // on waiting requests
  // How long the request that has waited longest has waited; 0: none waits.
  absl::Duration oldest_wait;
  std::vector<UserLoad> users;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_SCHEDULE_LISTING_H_
