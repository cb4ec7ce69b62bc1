// Who calls, as the operator has configured it. Plain data: what makes a User
// of a call's credentials is identity.h.
#ifndef QKSCOPE_SERVER_COMMON_USER_H_
#define QKSCOPE_SERVER_COMMON_USER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace qk {

// What a user may take of the server. 0: no limit of its own.
struct UserBudget {
  // Of the device and of streamed payloads, within any window.
  int64_t device_ms_per_window = 0;  // milliseconds
  int64_t bytes_per_window = 0;      // bytes
  // The window's length, in seconds.
  int64_t window_s = 3600;
  // Requests of the user at one time: admitted ones (running or waiting), and
  // of these the waiting ones.
  int max_in_flight = 0;
  int max_queued = 0;

  bool operator==(const UserBudget&) const = default;
};

enum class UserRole {
  kUser,
  kOperator,  // may call ModelAdmin too
};

struct User {
  // The only name under which logs, metrics and usage know the user.
  // [A-Za-z0-9._-]{1,64}.
  std::string alias;
  // Share of the device relative to other users who wait; finite, > 0.
  double weight = 1;
  UserRole role = UserRole::kUser;
  // By name; empty: all. Other models do not exist for the user.
  std::vector<std::string> allowed_models;
  UserBudget budget;

  bool operator==(const User&) const = default;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_COMMON_USER_H_
