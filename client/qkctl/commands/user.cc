#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/qkctl/command.h"
#include "client/qkctl/commands/users_file.h"
#include "client/qkctl/flags/text_parse.h"
#include "engine/base/sha256.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

struct UserFlags {
  std::optional<std::string> users_file, role, models;
  std::optional<double> weight;

  void AddTo(FlagSet* flags) {
    flags->Section("User");
    flags->Add("users-file", "FILE",
               "the server's users_file; `add` creates it if necessary",
               &users_file);
    flags->Add("role", "ROLE", "add: user (default) or operator", &role);
    flags->Offer("user, operator");
    flags->Add("weight", "W",
               "add: weight of the share of the device while other users wait "
               "too (default 1)",
               &weight);
    flags->Add("models", "A,B", "add: allow only these models (default: all)",
               &models);
  }
};

ExitCode AddUser(const std::string& alias, const UserFlags& flags,
                 Context* context) {
  v1::UserConfig user;
  user.set_alias(alias);
  if (flags.role.has_value()) user.set_role(*flags.role);
  if (flags.weight.has_value()) user.set_weight(*flags.weight);
  if (flags.models.has_value()) {
    for (const std::string& model : SplitText(*flags.models, ",")) {
      user.add_allowed_models(model);
    }
  }
  absl::Status status = CheckNewUser(user);
  if (!status.ok()) return context->FailUsage(status);
  const std::string token = MakeToken();
  user.set_token_sha256(Sha256Hex(token));
  Console* console = &context->console;
  if (flags.users_file.has_value()) {
    status = AddToUsersFile(*flags.users_file, user);
    if (!status.ok()) return context->Fail(status);
  }
  console->Print(token + "\n");
  console->Error(
      "The token is shown only once. Its user passes it to qkctl in "
      "QKSCOPE_TOKEN or with --token-file.");
  if (!flags.users_file.has_value()) {
    console->Error("Add this to the server's configuration or users_file:");
    console->Print(UserText(user));
  }
  return kExitOk;
}

ExitCode ListUsers(const std::string& path, Context* context) {
  const absl::StatusOr<v1::UsersFile> users = ReadUsersFile(path);
  if (!users.ok()) return context->Fail(users.status());
  size_t width = 5;
  for (const v1::UserConfig& user : users->users()) {
    width = std::max(width, user.alias().size());
  }
  Console* console = &context->console;
  console->Print(console->Bold(absl::StrFormat("%-*s  %-8s  %6s  %-11s  %s",
                                               width, "alias", "role", "weight",
                                               "known by", "models")) +
                 "\n");
  for (const v1::UserConfig& user : users->users()) {
    const char* known_by = !user.has_subject()       ? "token"
                           : user.has_token_sha256() ? "both"
                                                     : "certificate";
    console->Print(absl::StrFormat(
        "%-*s  %-8s  %6g  %-11s  %s\n", width, Printable(user.alias()),
        user.has_role() ? Printable(user.role()) : "user",
        user.has_weight() ? user.weight() : 1.0, known_by,
        user.allowed_models().empty()
            ? "all"
            : Printable(absl::StrJoin(user.allowed_models(), ","))));
  }
  return kExitOk;
}

ExitCode RunUser(const std::vector<std::string>& arguments, Context* context) {
  CommandLine line(kUserCommand.text, context);
  UserFlags flags;
  flags.AddTo(line.flags());
  if (auto over = line.Parse(arguments, 2)) return *over;
  const std::string action = line.words().empty() ? "" : line.words()[0];
  const bool named = line.words().size() == 2;
  if (action == "add" && named) {
    return AddUser(line.words()[1], flags, context);
  }
  const bool removes = action == "remove" && named;
  if (!removes && (action != "list" || named)) {
    return context->FailUsage(absl::InvalidArgumentError(
        "user: expected add ALIAS, list or remove ALIAS; see qkctl user "
        "--help"));
  }
  if (!flags.users_file.has_value()) {
    return context->FailUsage(
        absl::InvalidArgumentError("--users-file: must be given"));
  }
  if (!removes) return ListUsers(*flags.users_file, context);
  const absl::Status status =
      RemoveFromUsersFile(*flags.users_file, line.words()[1]);
  return status.ok() ? kExitOk : context->Fail(status);
}

}  // namespace

const Command kUserCommand = {
    {"user", "add ALIAS | list | remove ALIAS",
     "Manage who may call a server, in its users file",
     "add prints a new token on standard output, once; the file keeps only "
     "its\nSHA-256. Without --users-file, add also prints the entry for the "
     "file. A running\nserver applies changes of the file within seconds. "
     "remove rewrites the file\nwithout its comments.\n\nExamples:\n"
     "  qkctl user add ada --users-file users.conf > ada.token\n"
     "  qkctl user add ops --users-file users.conf --role operator --weight 2\n"
     "  qkctl user list --users-file users.conf\n"},
    &RunUser};

}  // namespace qk::client
