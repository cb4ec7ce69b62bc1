#include "server/access/identity.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "engine/base/check.h"

namespace qk {
namespace {

constexpr size_t kMaxTokenBytes = 512;
// RFC 7235: the name of a scheme is case-insensitive.
constexpr absl::string_view kScheme = "Bearer ";

// The alphabet of bearer tokens in RFC 6750.
bool IsTokenText(absl::string_view token) {
  return !token.empty() && token.size() <= kMaxTokenBytes &&
         std::all_of(token.begin(), token.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || absl::string_view("-._~+/=").find(
                                                c) != absl::string_view::npos;
         });
}

std::shared_ptr<const User> AnonymousUser() {
  auto user = std::make_shared<User>();
  user->alias = kAnonymous;
  return user;
}

}  // namespace

Identity::Identity(Load load)
    : load_(std::move(load)), anonymous_(AnonymousUser()) {}

std::unique_ptr<Identity> Identity::Anonymous() {
  return std::unique_ptr<Identity>(new Identity(nullptr));
}

absl::StatusOr<std::unique_ptr<Identity>> Identity::Create(Load load) {
  std::unique_ptr<Identity> identity(new Identity(std::move(load)));
  QK_RETURN_IF_ERROR(identity->Reload());
  return identity;
}

absl::StatusOr<std::shared_ptr<const User>> Identity::Authenticate(
    const Credentials& credentials) const {
  if (!requires_credentials()) return anonymous_;
  const std::shared_ptr<const Users> users = this->users();
  std::shared_ptr<const User> user;
  if (credentials.authorization.size() == 1) {
    absl::string_view token = credentials.authorization[0];
    if (absl::StartsWithIgnoreCase(token, kScheme)) {
      token.remove_prefix(kScheme.size());
      if (IsTokenText(token)) user = users->FindByToken(token);
    }
  } else if (credentials.authorization.empty() &&
             credentials.subject.has_value()) {
    user = users->FindBySubject(*credentials.subject);
  }
  if (user == nullptr) {
    return absl::UnauthenticatedError("missing or invalid token");
  }
  return user;
}

std::shared_ptr<const User> Identity::Find(absl::string_view alias) const {
  if (requires_credentials()) return users()->FindByAlias(alias);
  return alias == kAnonymous ? anonymous_ : nullptr;
}

absl::Status Identity::Reload(bool* changed) {
  if (!requires_credentials()) return absl::OkStatus();
  MutexLock reloading(&reload_mutex_);
  QK_ASSIGN_OR_RETURN(std::vector<UserEntry> entries, load_());
  QK_ASSIGN_OR_RETURN(Users users, Users::Create(std::move(entries)));
  auto table = std::make_shared<const Users>(std::move(users));
  MutexLock lock(&mutex_);
  if (changed != nullptr) *changed = !(*table == *users_);
  users_ = std::move(table);
  return absl::OkStatus();
}

bool Identity::EverybodyMayUse(absl::string_view model) const {
  return !requires_credentials() || users()->AllMayUse(model);
}

size_t Identity::size() const { return users()->size(); }

std::shared_ptr<const Users> Identity::users() const {
  MutexLock lock(&mutex_);
  return users_;
}

}  // namespace qk
