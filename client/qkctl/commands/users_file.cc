#include "client/qkctl/commands/users_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/files/file_io.h"
#include "engine/base/check.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"

namespace qk::client {
namespace {

using qkscope::v1::UserConfig;
using qkscope::v1::UsersFile;

constexpr size_t kTokenBytes = 32;
constexpr size_t kMaxAlias = 64;
constexpr size_t kMaxModel = 128;
constexpr double kMaxWeight = 1000;
constexpr char kHeader[] =
    "# Who may call qkscoped: a UsersFile of proto/qkscope/v1/config.proto.\n";

bool IsName(const std::string& name, size_t max) {
  return !name.empty() && name.size() <= max &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int, const std::string& message) override {
    if (text_.empty()) text_ = absl::StrCat(line + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

absl::StatusOr<UsersFile> Parse(const std::string& text,
                                const std::string& path) {
  UsersFile users;
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (parser.ParseFromString(text, &users)) return users;
  return absl::InvalidArgumentError(absl::StrCat(path, ":", error.text()));
}

// Returns an empty text if the file does not exist.
absl::StatusOr<std::string> ReadIfExists(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, SmallFileOptions());
  if (absl::IsNotFound(text.status())) return std::string();
  return text;
}

// A lock for reading and replacing a file. It locks the folder, because the
// file itself is replaced by another one.
class FolderLock {
 public:
  explicit FolderLock(const std::string& path) {
    std::error_code error;
    const std::string folder =
        std::filesystem::absolute(path, error).parent_path().string();
    fd_ = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd_ >= 0) flock(fd_, LOCK_EX);
  }
  ~FolderLock() {
    if (fd_ >= 0) close(fd_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

}  // namespace

std::string MakeToken() {
  std::string bytes(kTokenBytes, '\0');
  // getrandom returns up to 256 bytes completely or not at all.
  QK_CHECK(getrandom(bytes.data(), bytes.size(), 0) ==
           static_cast<ssize_t>(bytes.size()));
  return absl::StrCat("qks_", absl::WebSafeBase64Escape(bytes));
}

absl::Status CheckNewUser(const UserConfig& user) {
  if (!IsName(user.alias(), kMaxAlias) || user.alias() == "anonymous") {
    return absl::InvalidArgumentError(
        absl::StrCat("ALIAS: must be [A-Za-z0-9._-]{1,64} and not "
                     "'anonymous', got '",
                     absl::CHexEscape(user.alias().substr(0, 64)), "'"));
  }
  if (user.has_role() && user.role() != "user" && user.role() != "operator") {
    return absl::InvalidArgumentError("--role: must be user or operator");
  }
  if (user.has_weight() &&
      !(user.weight() > 0 && user.weight() <= kMaxWeight)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--weight: must be in (0, ", kMaxWeight, "]"));
  }
  for (const std::string& model : user.allowed_models()) {
    if (IsName(model, kMaxModel)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--models: '", absl::CHexEscape(model.substr(0, 64)),
                     "' is not a model name"));
  }
  return absl::OkStatus();
}

std::string UserText(const UserConfig& user) {
  UsersFile file;
  *file.add_users() = user;
  std::string text;
  google::protobuf::TextFormat::PrintToString(file, &text);
  return text;
}

absl::StatusOr<UsersFile> ReadUsersFile(const std::string& path) {
  QK_ASSIGN_OR_RETURN(const std::string text, ReadIfExists(path));
  return Parse(text, path);
}

absl::Status AddToUsersFile(const std::string& path, const UserConfig& user) {
  const FolderLock lock(path);
  QK_ASSIGN_OR_RETURN(std::string text, ReadIfExists(path));
  QK_ASSIGN_OR_RETURN(const UsersFile users, Parse(text, path));
  for (const UserConfig& other : users.users()) {
    if (other.alias() != user.alias()) continue;
    return absl::AlreadyExistsError(
        absl::StrCat(path, ": user '", user.alias(), "' already exists"));
  }
  if (text.empty()) text = kHeader;
  if (text.back() != '\n') text += '\n';
  absl::StrAppend(&text, UserText(user));
  return WriteFileAtomically(path, {&text}, FileMode::kPrivate);
}

absl::Status RemoveFromUsersFile(const std::string& path,
                                 const std::string& alias) {
  const FolderLock lock(path);
  QK_ASSIGN_OR_RETURN(const UsersFile users, ReadUsersFile(path));
  std::string text = kHeader;
  for (const UserConfig& user : users.users()) {
    if (user.alias() != alias) absl::StrAppend(&text, UserText(user));
  }
  const bool found = std::any_of(
      users.users().begin(), users.users().end(),
      [&](const UserConfig& user) { return user.alias() == alias; });
  if (!found) {
    return absl::NotFoundError(
        absl::StrCat(path, ": there is no user '",
                     absl::CHexEscape(alias.substr(0, 64)), "'"));
  }
  return WriteFileAtomically(path, {&text}, FileMode::kPrivate);
}

}  // namespace qk::client
