// Reads users from the configuration and the users file.
#ifndef QKSCOPE_SERVER_ACCESS_USERS_CONFIG_H_
#define QKSCOPE_SERVER_ACCESS_USERS_CONFIG_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "qkscope/v1/config.pb.h"
#include "server/access/users.h"

namespace qk {

// Errors: `SOURCE: users[2].weight: must be ..., got ...`, where `source_of`
// returns SOURCE for a user's index ("FILE" or "FILE:LINE").
absl::StatusOr<std::vector<UserEntry>> UsersFromConfig(
    const google::protobuf::RepeatedPtrField<::qkscope::v1::UserConfig>& users,
    const std::function<std::string(int index)>& source_of);

// Parses the text of a UsersFile. Errors: `file:line: ...`.
absl::StatusOr<std::vector<UserEntry>> ParseUsersFile(const std::string& text,
                                                      const std::string& file);

// Reads the users of the configuration file, or takes `fixed` if no file is
// given, and appends those of the users file if one is given. An empty path
// means no file.
absl::StatusOr<std::vector<UserEntry>> ReadUsers(
    const std::string& config_file, const std::vector<UserEntry>& fixed,
    const std::string& users_file);

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_USERS_CONFIG_H_
