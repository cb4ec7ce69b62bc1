#include "server/config/config_check.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/file_error.h"
#include "engine/base/nearest_name.h"
#include "server/access/users_config.h"
#include "server/common/log_writer.h"
#include "server/common/text.h"
#include "server/net/addresses.h"

namespace qk {
namespace {

using ::qkscope::v1::ServerConfig;

// No answer is smaller than this, however little it holds.
constexpr int64_t kLeastAnswer = 16 * 1024;
// gRPC refuses larger messages.
constexpr int64_t kMaxMessage = int64_t{4} << 20;

absl::Status WithKey(absl::string_view key, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(key, ": ", status.message()));
}

class Finder {
 public:
  Finder(const ServerConfig& config, const ServerOptions& options)
      : config_(config), options_(options) {}

  ConfigFindings Find() {
    CheckModels();
    CheckUsers();
    Add(CheckListen(options_));
    Add(CheckMetricsListen(options_));
    CheckSpool();
    CheckBaselines();
    if (!options_.log_file.empty()) {
      Add(WithKey("log_file", CheckLogFile(options_.log_file)));
    }
    CheckLimits();
    return std::move(findings_);
  }

 private:
  void Add(const absl::Status& status) {
    if (!status.ok()) findings_.problems.push_back(status);
  }
  void Impossible(absl::string_view key, absl::string_view problem) {
    Add(WithKey(key, absl::InvalidArgumentError(problem)));
  }
  template <typename... Parts>
  void Warn(const Parts&... parts) {
    findings_.warnings.push_back(absl::StrCat(parts...));
  }

  void CheckModels();
  void CheckUsers();
  void CheckUser(const UserEntry& user);
  void CheckSpool();
  void CheckBaselines();
  void CheckLimits();

  const ServerConfig& config_;
  const ServerOptions& options_;
  ConfigFindings findings_;
};

void Finder::CheckModels() {
  if (options_.models.empty() && !options_.model_admin.enabled) {
    Impossible("models",
               "there are none, and model_admin, which could load some, is "
               "off");
  }
  for (const absl::Status& problem :
       CheckModelFiles(options_.models, options_.model_admin,
                       options_.limits.kv_cache_bytes)) {
    Add(problem);
  }
  const int most = options_.model_admin.max_models;
  const int count = static_cast<int>(options_.models.size());
  if (options_.model_admin.enabled && most > 0 && count > most) {
    Warn("model_admin.max_models: is ", most, ", but there are ", count,
         " models already, so that none can be loaded");
  }
}

void Finder::CheckUsers() {
  Add(CheckAccessFiles(options_));
  if (!options_.access.has_users()) return;
  const auto users =
      ReadUsers(options_.access.config_file, options_.access.users,
                options_.access.users_file);
  if (!users.ok()) return;  // CheckAccessFiles says why
  if (users->empty()) Warn("users: there are none, so nobody can call");
  for (const UserEntry& user : *users) CheckUser(user);
  const bool operators =
      std::any_of(users->begin(), users->end(), [](const UserEntry& user) {
        return user.user.role == UserRole::kOperator;
      });
  if (options_.model_admin.enabled && !operators) {
    Warn("model_admin: no user is an operator, so nobody can load models");
  }
}

void Finder::CheckUser(const UserEntry& user) {
  std::vector<std::string> models;
  for (const ModelToLoad& model : options_.models) models.push_back(model.name);
  for (const std::string& name : user.user.allowed_models) {
    if (std::find(models.begin(), models.end(), name) != models.end()) continue;
    const std::string key = absl::StrCat(user.where, ".allowed_models");
    if (options_.model_admin.enabled) {
      Warn(key, ": there is no model '", name, "' until somebody loads it");
      continue;
    }
    const std::string nearest = NearestName(name, models);
    Impossible(key, absl::StrCat(
                        "there is no model '", name, "'",
                        nearest.empty()
                            ? ""
                            : absl::StrCat("; did you mean '", nearest, "'?")));
  }
  const UserBudget& budget = user.user.budget;
  if (budget.max_in_flight > 0 && budget.max_queued >= budget.max_in_flight) {
    Warn(user.where, ".budget.max_queued: is ", budget.max_queued,
         ", but only ", budget.max_in_flight,
         " requests may run or wait (max_in_flight), so it has no effect");
  }
  if (budget.device_ms_per_window / 1000 > budget.window_s) {
    Warn(user.where, ".budget.device_ms_per_window: is ",
         budget.device_ms_per_window, ", more than the window of ",
         budget.window_s, " s has, so it has no effect");
  }
  if (budget.max_queued > options_.limits.max_queued_requests) {
    Warn(user.where, ".budget.max_queued: is ", budget.max_queued,
         ", but only ", options_.limits.max_queued_requests,
         " requests of all users may wait (limits.max_queued_requests)");
  }
}

// Whether a file can be made in the folder. Leaves nothing behind.
absl::Status CheckWritableFolder(const std::string& folder) {
  const int fd =
      open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (fd >= 0) {
    close(fd);
    return absl::OkStatus();
  }
  // Not every file system has files without a name.
  if ((errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT) &&
      access(folder.c_str(), R_OK | W_OK | X_OK) == 0) {
    return absl::OkStatus();
  }
  return ErrnoStatus(errno,
                     absl::StrCat("cannot be written: ", std::strerror(errno)));
}

absl::Status CheckUnlocked(const std::string& file) {
  const int fd = open(file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return ErrnoStatus(errno, absl::StrCat("its file 'lock' cannot be opened: ",
                                           std::strerror(errno)));
  }
  const bool free = flock(fd, LOCK_EX | LOCK_NB) == 0;
  close(fd);
  if (free) return absl::OkStatus();
  return absl::FailedPreconditionError("in use by another server");
}

// A folder that the server makes if there is none, and that it alone may use.
absl::Status CheckOwnFolder(const std::string& folder) {
  struct stat info;
  if (stat(folder.c_str(), &info) == 0) {
    if (!S_ISDIR(info.st_mode)) {
      return absl::InvalidArgumentError("is not a folder");
    }
    const absl::Status writable = CheckWritableFolder(folder);
    return writable.ok() ? CheckUnlocked(absl::StrCat(folder, "/lock"))
                         : writable;
  }
  if (errno != ENOENT) {
    return ErrnoStatus(errno,
                       absl::StrCat("cannot be used: ", std::strerror(errno)));
  }
  // The server makes the folder, but not the one that it lies in.
  const size_t slash = folder.find_last_of('/', folder.size() - 2);
  const std::string parent = slash == std::string::npos ? "."
                             : slash == 0               ? "/"
                                          : folder.substr(0, slash);
  const absl::Status writable = CheckWritableFolder(parent);
  if (writable.ok()) return writable;
  return absl::Status(
      writable.code(),
      absl::StrCat("cannot be made: folder ", parent, " ", writable.message()));
}

void Finder::CheckSpool() {
  if (!options_.spool.has_value()) return;
  const std::string& folder = options_.spool->directory;
  Add(WithKey(absl::StrCat("spool.directory: ", folder),
              CheckOwnFolder(folder)));
  const auto check_bytes = [this](const char* key, int64_t bytes) {
    if (bytes >= kLeastAnswer) return true;
    Impossible(key, absl::StrCat("is ", HumanBytes(bytes),
                                 ", which no result fits into"));
    return false;
  };
  if (check_bytes("spool.max_bytes", options_.spool->most.bytes)) {
    check_bytes("spool.max_bytes_per_user",
                options_.spool->most_per_user.bytes);
  }
}

void Finder::CheckBaselines() {
  const std::string& folder = options_.activations.baseline_dir;
  if (folder.empty()) return;
  Add(WithKey(absl::StrCat("baseline_dir: ", folder), CheckOwnFolder(folder)));
}

void Finder::CheckLimits() {
  const Limits& limits = options_.limits;
  if (limits.max_text_bytes > kMaxMessage) {
    Warn("limits.max_text_bytes: is ", HumanBytes(limits.max_text_bytes),
         ", but no message may be larger than ", HumanBytes(kMaxMessage));
  }
  if (limits.max_buffered_bytes < kLeastAnswer) {
    Impossible("limits.max_buffered_bytes",
               absl::StrCat("is ", HumanBytes(limits.max_buffered_bytes),
                            ", which no answer fits into"));
    return;
  }
  if (limits.max_response_bytes <= limits.max_buffered_bytes) return;
  const std::string problem = absl::StrCat(
      "is ", HumanBytes(limits.max_response_bytes),
      ", but no answer may be larger than limits.max_buffered_bytes, ",
      HumanBytes(limits.max_buffered_bytes));
  const auto& set = config_.limits();
  if (set.has_max_response_bytes() && set.has_max_buffered_bytes()) {
    Impossible("limits.max_response_bytes", problem);
  } else if (set.has_max_response_bytes() || set.has_max_buffered_bytes()) {
    Warn("limits.max_response_bytes: ", problem);
  }
}

}  // namespace

ConfigFindings CheckConfiguration(const ServerConfig& config,
                                  const ServerOptions& options) {
  return Finder(config, options).Find();
}

absl::Status CheckListen(const ServerOptions& options) {
  return WithKey("listen", ProbeAddress(options.listen));
}

absl::Status CheckMetricsListen(const ServerOptions& options) {
  if (options.metrics_listen.empty()) return absl::OkStatus();
  return WithKey("metrics_listen", ProbeAddress(options.metrics_listen));
}

}  // namespace qk
