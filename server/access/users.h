// All users and what proves that a call is one of them. No gRPC.
#ifndef QKSCOPE_SERVER_ACCESS_USERS_H_
#define QKSCOPE_SERVER_ACCESS_USERS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/common/user.h"

namespace qk {

// The user of servers that ask for no credentials.
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
  // Errors, `where.field: problem`: an alias, token or subject used twice.
  static absl::StatusOr<Users> Create(std::vector<UserEntry> entries);

  // nullptr: nobody. The time taken tells nothing of the tokens known.
  std::shared_ptr<const User> FindByToken(absl::string_view token) const;
  std::shared_ptr<const User> FindBySubject(absl::string_view subject) const;

  size_t size() const { return rows_.size(); }
  // The same users in the same order.
  bool operator==(const Users& other) const;

 private:
  struct Row {
    std::shared_ptr<const User> user;
    std::string token_sha256;
    std::string subject;
  };
  std::vector<Row> rows_;
};

// Whether the model exists for the user.
bool MayUseModel(const User& user, absl::string_view model);

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_USERS_H_
