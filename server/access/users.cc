#include "server/access/users.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/sha256.h"

namespace qk {
namespace {

// Checks that no two users have the same value; empty values do not count.
absl::Status CheckUnique(const std::vector<UserEntry>& entries,
                         const char* field,
                         const std::string& (*value_of)(const UserEntry&)) {
  std::map<std::string, const UserEntry*> seen;
  for (const UserEntry& entry : entries) {
    const std::string& value = value_of(entry);
    if (value.empty()) continue;
    const auto [it, inserted] = seen.emplace(value, &entry);
    if (inserted) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(entry.where, ".", field, ": already belongs to '",
                     it->second->user.alias, "' at ", it->second->where));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Users> Users::Create(std::vector<UserEntry> entries) {
  QK_RETURN_IF_ERROR(CheckUnique(
      entries, "alias",
      [](const UserEntry& e) -> const std::string& { return e.user.alias; }));
  QK_RETURN_IF_ERROR(CheckUnique(
      entries, "token_sha256",
      [](const UserEntry& e) -> const std::string& { return e.token_sha256; }));
  QK_RETURN_IF_ERROR(CheckUnique(
      entries, "subject",
      [](const UserEntry& e) -> const std::string& { return e.subject; }));
  Users users;
  for (UserEntry& entry : entries) {
    users.rows_.push_back({std::make_shared<User>(std::move(entry.user)),
                           std::move(entry.token_sha256),
                           std::move(entry.subject)});
  }
  return users;
}

bool Users::operator==(const Users& other) const {
  return std::equal(rows_.begin(), rows_.end(), other.rows_.begin(),
                    other.rows_.end(), [](const Row& a, const Row& b) {
                      return *a.user == *b.user &&
                             a.token_sha256 == b.token_sha256 &&
                             a.subject == b.subject;
                    });
}

std::shared_ptr<const User> Users::FindByToken(absl::string_view token) const {
  const std::string digest = Sha256Hex(token);
  const Row* found = nullptr;
  for (const Row& row : rows_) {
    if (row.token_sha256.size() != digest.size()) continue;
    const bool same = CRYPTO_memcmp(row.token_sha256.data(), digest.data(),
                                    digest.size()) == 0;
    found = same ? &row : found;
  }
  return found == nullptr ? nullptr : found->user;
}

std::shared_ptr<const User> Users::FindBySubject(
    absl::string_view subject) const {
  if (subject.empty()) return nullptr;
  for (const Row& row : rows_) {
    if (row.subject == subject) return row.user;
  }
  return nullptr;
}

std::shared_ptr<const User> Users::FindByAlias(absl::string_view alias) const {
  for (const Row& row : rows_) {
    if (row.user->alias == alias) return row.user;
  }
  return nullptr;
}

bool Users::AllMayUse(absl::string_view model) const {
  return !rows_.empty() &&
         std::all_of(rows_.begin(), rows_.end(), [model](const Row& row) {
           return MayUseModel(*row.user, model);
         });
}

bool MayUseModel(const User& user, absl::string_view model) {
  const std::vector<std::string>& allowed = user.allowed_models;
  return allowed.empty() ||
         std::find(allowed.begin(), allowed.end(), model) != allowed.end();
}

}  // namespace qk
