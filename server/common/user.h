// A user, as the operator has configured it. Plain data; identity.h finds the
// user that a call's credentials belong to.
#ifndef QKSCOPE_SERVER_COMMON_USER_H_
#define QKSCOPE_SERVER_COMMON_USER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace qk {

// A user's limits. 0 means no limit.
struct UserBudget {
  // Device time and streamed payload bytes in a sliding window of window_s
  // seconds.
  int64_t device_ms_per_window = 0;
  int64_t bytes_per_window = 0;
  int64_t window_s = 3600;
  // The user's requests at one time: those that run or wait, and those that
  // wait.
  int max_in_flight = 0;
  int max_queued = 0;
  // Results kept at one time, and their bytes; 0: the store's own limit for
  // each user.
  int64_t max_kept_results = 0;
  int64_t max_kept_bytes = 0;

  bool operator==(const UserBudget&) const = default;
};

enum class UserRole {
  kUser,
  kOperator,  // may also call ModelAdmin, and see and cancel all requests
};

struct User {
  // The only name under which logs, metrics and usage reports know the user.
  // [A-Za-z0-9._-]{1,64}.
  std::string alias;
  // Weight of the user's share of the device among waiting users; finite, > 0.
  double weight = 1;
  UserRole role = UserRole::kUser;
  // Names of the models that the user may see and use. Empty: all.
  std::vector<std::string> allowed_models;
  UserBudget budget;

  bool operator==(const User&) const = default;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_USER_H_
