// The server's users file, and the tokens that stand in it by their SHA-256.
#ifndef QKSCOPE_CLIENT_QKCTL_COMMANDS_USERS_FILE_H_
#define QKSCOPE_CLIENT_QKCTL_COMMANDS_USERS_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "qkscope/v1/config.pb.h"

namespace qk::client {

// "qks_" and 256 random bits in base64url.
std::string MakeToken();

// INVALID_ARGUMENT names the flag that `qkctl user add` has for the field.
absl::Status CheckNewUser(const qkscope::v1::UserConfig& user);

// The user as text proto, `users {...}`.
std::string UserText(const qkscope::v1::UserConfig& user);

// An absent file has no users. Errors name file and line.
absl::StatusOr<qkscope::v1::UsersFile> ReadUsersFile(const std::string& path);

// Appends the user; what stands in the file stays as it is. ALREADY_EXISTS for
// an alias that is there. A new file only its owner can read. Several processes
// may do this at a time.
absl::Status AddToUsersFile(const std::string& path,
                            const qkscope::v1::UserConfig& user);

// Rewrites the file without the user, and without comments. NOT_FOUND.
absl::Status RemoveFromUsersFile(const std::string& path,
                                 const std::string& alias);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_COMMANDS_USERS_FILE_H_
