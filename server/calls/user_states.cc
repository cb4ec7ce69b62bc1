#include "server/calls/user_states.h"

#include <set>

namespace qk {

bool MaySeeUser(const Identity& identity, const User* viewer,
                const std::string& alias) {
  if (!identity.requires_credentials()) return true;
  if (viewer == nullptr) return false;
  return viewer->role == UserRole::kOperator || viewer->alias == alias;
}

UserState NewState(const User& user) {
  UserState out;
  out.alias = user.alias;
  out.weight = user.weight;
  out.budget = user.budget;
  return out;
}

void AddOwners(const std::map<std::string, KeptAmount>& kept,
               const Identity& identity, std::vector<UserState>* users) {
  std::set<std::string> known;
  for (const UserState& user : *users) known.insert(user.alias);
  for (const auto& [alias, amount] : kept) {
    if (known.contains(alias)) continue;
    const auto user = identity.Find(alias);
    User gone;  // from the users file
    gone.alias = alias;
    users->push_back(NewState(user != nullptr ? *user : gone));
  }
}

}  // namespace qk
