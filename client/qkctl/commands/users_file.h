// The server's users file, which identifies tokens by their SHA-256.
#ifndef QKSCOPE_CLIENT_QKCTL_COMMANDS_USERS_FILE_H_
#define QKSCOPE_CLIENT_QKCTL_COMMANDS_USERS_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "qkscope/v1/config.pb.h"

namespace qk::client {

// Makes a new token: "qks_" and 256 random bits in base64url.
std::string MakeToken();

// INVALID_ARGUMENT names the flag of `qkctl user add` for the bad field.
absl::Status CheckNewUser(const qkscope::v1::UserConfig& user);

// The user as text proto, `users {...}`.
std::string UserText(const qkscope::v1::UserConfig& user);

// An absent file has no users. Errors name file and line.
absl::StatusOr<qkscope::v1::UsersFile> ReadUsersFile(const std::string& path);

// Appends the user without changing the rest of the file. ALREADY_EXISTS if the
// alias is taken. Only its owner can read a new file. Several processes may
// call this at the same time.
absl::Status AddToUsersFile(const std::string& path,
                            const qkscope::v1::UserConfig& user);

// Rewrites the file without the user, and without comments. NOT_FOUND if there
// is no such user.
absl::Status RemoveFromUsersFile(const std::string& path,
                                 const std::string& alias);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_COMMANDS_USERS_FILE_H_
