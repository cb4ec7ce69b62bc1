// Users as the configuration writes them.
#ifndef QKSCOPE_SERVER_ACCESS_USERS_CONFIG_H_
#define QKSCOPE_SERVER_ACCESS_USERS_CONFIG_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "qkscope/v1/config.pb.h"
#include "server/access/users.h"

namespace qk {

// Errors: `users[2].weight: must be ..., got ...`, after what `source_of` gives
// for the user's place ("FILE" or "FILE:LINE").
absl::StatusOr<std::vector<UserEntry>> UsersFromConfig(
    const google::protobuf::RepeatedPtrField<::qkscope::v1::UserConfig>& users,
    const std::function<std::string(int index)>& source_of);

// A UsersFile's text. Errors: `file:line: ...`.
absl::StatusOr<std::vector<UserEntry>> ParseUsersFile(const std::string& text,
                                                      const std::string& file);

// Reads the users of a configuration file, which may be empty (then `fixed`
// are taken instead), and of a users file, which may be empty, too.
absl::StatusOr<std::vector<UserEntry>> ReadUsers(
    const std::string& config_file, const std::vector<UserEntry>& fixed,
    const std::string& users_file);

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_USERS_CONFIG_H_
