#include "server/access/users_config.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "google/protobuf/text_format.h"
#include "server/common/model_name.h"
#include "server/common/parse_config.h"
#include "server/common/text.h"
#include "server/common/text_file.h"

namespace qk {
namespace {

using ::google::protobuf::TextFormat;
using ::qkscope::v1::BudgetConfig;
using ::qkscope::v1::UserConfig;
using ::qkscope::v1::UsersFile;

constexpr size_t kMaxAlias = 64;
constexpr size_t kMaxSubject = 256;
constexpr double kMaxWeight = 1000;
constexpr int64_t kMaxWindow = 31 * 24 * 3600;

// Makes the error messages for one user.
class Checker {
 public:
  explicit Checker(std::string where) : where_(std::move(where)) {}

  const std::string& where() const { return where_; }
  absl::Status Bad(absl::string_view field, absl::string_view problem) const {
    return absl::InvalidArgumentError(
        absl::StrCat(where_, ".", field, ": ", problem));
  }

 private:
  const std::string where_;
};

bool IsAlias(const std::string& alias) {
  return !alias.empty() && alias.size() <= kMaxAlias && alias != kAnonymous &&
         CheckModelName("alias", alias).ok();
}

absl::Status SetCredentials(const UserConfig& in, const Checker& check,
                            UserEntry* out) {
  out->token_sha256 = absl::AsciiStrToLower(in.token_sha256());
  const bool hex = std::all_of(out->token_sha256.begin(),
                               out->token_sha256.end(), absl::ascii_isxdigit);
  // The value is not echoed: it may be a token, put here by mistake.
  if (in.has_token_sha256() && (!hex || out->token_sha256.size() != 64)) {
    return check.Bad("token_sha256",
                     absl::StrCat("must be 64 hex digits, got ",
                                  in.token_sha256().size(), " bytes"));
  }
  out->subject = in.subject();
  if (in.has_subject() &&
      (out->subject.empty() || out->subject.size() > kMaxSubject)) {
    return check.Bad("subject",
                     absl::StrCat("must be 1 to ", kMaxSubject, " bytes, got ",
                                  out->subject.size()));
  }
  if (!in.has_token_sha256() && !in.has_subject()) {
    return check.Bad("token_sha256", "token_sha256 or subject must be set");
  }
  return absl::OkStatus();
}

absl::Status SetBudget(const BudgetConfig& in, const Checker& check,
                       UserBudget* out) {
#define QK_BUDGET(name)                                              \
  if (in.name() < 0) {                                               \
    return check.Bad("budget." #name,                                \
                     absl::StrCat("must be >= 0, got ", in.name())); \
  }                                                                  \
  out->name = in.name()
  QK_BUDGET(device_ms_per_window);
  QK_BUDGET(bytes_per_window);
  QK_BUDGET(max_in_flight);
  QK_BUDGET(max_queued);
  QK_BUDGET(max_kept_results);
  QK_BUDGET(max_kept_bytes);
#undef QK_BUDGET
  if (!in.has_window_s()) return absl::OkStatus();
  if (in.window_s() < 1 || in.window_s() > kMaxWindow) {
    return check.Bad(
        "budget.window_s",
        absl::StrCat("must be in [1, ", kMaxWindow, "], got ", in.window_s()));
  }
  out->window_s = in.window_s();
  return absl::OkStatus();
}

absl::Status SetRights(const UserConfig& in, const Checker& check, User* out) {
  if (in.has_weight()) {
    out->weight = in.weight();
    if (!(out->weight > 0 && out->weight <= kMaxWeight)) {
      return check.Bad("weight", absl::StrCat("must be in (0, ", kMaxWeight,
                                              "], got ", out->weight));
    }
  }
  if (in.has_role()) {
    if (in.role() != "user" && in.role() != "operator") {
      return check.Bad("role", absl::StrCat("must be user or operator, got '",
                                            Echo(in.role()), "'"));
    }
    if (in.role() == "operator") out->role = UserRole::kOperator;
  }
  for (const std::string& model : in.allowed_models()) {
    if (!CheckModelName("", model).ok()) {
      return check.Bad("allowed_models",
                       absl::StrCat("invalid name '", Echo(model),
                                    "' (allowed [A-Za-z0-9._-]{1,128})"));
    }
    out->allowed_models.push_back(model);
  }
  return SetBudget(in.budget(), check, &out->budget);
}

absl::StatusOr<UserEntry> EntryFromConfig(const UserConfig& in,
                                          const Checker& check) {
  UserEntry out;
  out.where = check.where();
  if (!IsAlias(in.alias())) {
    return check.Bad("alias",
                     absl::StrCat("invalid alias '", Echo(in.alias()),
                                  "' (allowed [A-Za-z0-9._-]{1,64}, not '",
                                  kAnonymous, "')"));
  }
  out.user.alias = in.alias();
  QK_RETURN_IF_ERROR(SetCredentials(in, check, &out));
  QK_RETURN_IF_ERROR(SetRights(in, check, &out.user));
  return out;
}

}  // namespace

absl::StatusOr<std::vector<UserEntry>> UsersFromConfig(
    const google::protobuf::RepeatedPtrField<UserConfig>& users,
    const std::function<std::string(int index)>& source_of) {
  std::vector<UserEntry> out;
  for (int i = 0; i < users.size(); ++i) {
    const Checker check(absl::StrCat(source_of(i), ": users[", i, "]"));
    QK_ASSIGN_OR_RETURN(UserEntry entry, EntryFromConfig(users[i], check));
    out.push_back(std::move(entry));
  }
  return out;
}

absl::StatusOr<std::vector<UserEntry>> ParseUsersFile(const std::string& text,
                                                      const std::string& file) {
  UsersFile users;
  TextFormat::ParseInfoTree places;
  QK_RETURN_IF_ERROR(ParseTextProto(text, file, &users, &places));
  const auto* field = UsersFile::descriptor()->FindFieldByName("users");
  return UsersFromConfig(users.users(), [&](int i) {
    return absl::StrCat(file, ":", places.GetLocation(field, i).line + 1);
  });
}

absl::StatusOr<std::vector<UserEntry>> ReadUsers(
    const std::string& config_file, const std::vector<UserEntry>& fixed,
    const std::string& users_file) {
  std::vector<UserEntry> out = fixed;
  if (!config_file.empty()) {
    QK_ASSIGN_OR_RETURN(const std::string text,
                        ReadTextFile("--config", config_file));
    QK_ASSIGN_OR_RETURN(const auto config, ParseConfig(text, config_file));
    QK_ASSIGN_OR_RETURN(
        out, UsersFromConfig(config.users(), [&](int) { return config_file; }));
  }
  if (!users_file.empty()) {
    QK_ASSIGN_OR_RETURN(const std::string text,
                        ReadTextFile("users_file", users_file));
    QK_ASSIGN_OR_RETURN(const auto more, ParseUsersFile(text, users_file));
    out.insert(out.end(), more.begin(), more.end());
  }
  return out;
}

}  // namespace qk
