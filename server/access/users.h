// All users, with the credentials that identify them. Has no gRPC in it.
#ifndef QKSCOPE_SERVER_ACCESS_USERS_H_
#define QKSCOPE_SERVER_ACCESS_USERS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/common/user.h"

namespace qk {

// The alias of every caller of a server that needs no credentials.
inline constexpr char kAnonymous[] = "anonymous";

struct UserEntry {
  User user;
  std::string token_sha256;  // 64 lower-case hex digits, or empty
  std::string subject;       // common name of a client certificate, or empty
  std::string where;         // for errors: "FILE:LINE: users[3]"
};

// Immutable.
class Users {
 public:
  // Fails if an alias, token or subject is used twice: `where.field: problem`.
  static absl::StatusOr<Users> Create(std::vector<UserEntry> entries);

  // Returns nullptr if no user has the token. The time taken reveals nothing
  // about the known tokens.
  std::shared_ptr<const User> FindByToken(absl::string_view token) const;
  std::shared_ptr<const User> FindBySubject(absl::string_view subject) const;

  // Returns nullptr if no user has the alias.
  std::shared_ptr<const User> FindByAlias(absl::string_view alias) const;
  // Whether there are users and all may use the model.
  bool AllMayUse(absl::string_view model) const;

  size_t size() const { return rows_.size(); }
  // True for the same users in the same order.
  bool operator==(const Users& other) const;

 private:
  struct Row {
    std::shared_ptr<const User> user;
    std::string token_sha256;
    std::string subject;
  };
  std::vector<Row> rows_;
};

// Whether the user may see and use the model.
bool MayUseModel(const User& user, absl::string_view model);

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_USERS_H_
