// Reads the input as a configuration and as a users file.
#include "google/protobuf/stubs/logging.h"
#include "server/access/users_config.h"
#include "server/config/options.h"
#include "server/net/addresses.h"
#include "tests/fuzz/fuzz.h"

namespace {

void CheckLimits(const qk::Limits& limits) {
  for (const int64_t limit :
       {limits.max_text_bytes, int64_t{limits.max_arms},
        int64_t{limits.max_rules_per_arm}, int64_t{limits.max_list_entries},
        int64_t{limits.max_new_tokens}, int64_t{limits.max_queued_requests},
        limits.max_response_bytes, limits.max_deadline_ms,
        int64_t{limits.max_score_pairs}, int64_t{limits.max_rows_per_pass},
        limits.kv_cache_bytes, limits.max_buffered_bytes,
        int64_t{limits.write_stall_timeout_ms}}) {
    QK_CHECK(limit > 0);
  }
}

void CheckUsers(const std::vector<qk::UserEntry>& entries) {
  for (const qk::UserEntry& entry : entries) {
    QK_CHECK(!entry.user.alias.empty());
    QK_CHECK(!entry.token_sha256.empty() || !entry.subject.empty());
    QK_CHECK(entry.user.weight > 0 && entry.user.weight <= 1000);
  }
}

void CheckUsersFile(const std::string& text) {
  const auto entries = qk::ParseUsersFile(text, "users");
  if (!entries.ok()) return qk::fuzz::CheckMessage(entries.status());
  CheckUsers(*entries);
  const auto users = qk::Users::Create(*entries);
  if (!users.ok()) return qk::fuzz::CheckMessage(users.status());
  QK_CHECK(users->size() == entries->size());
}

void CheckOptions(const qk::ServerOptions& options) {
  const auto listen = qk::ParseHostPort(options.listen);
  QK_CHECK(listen.ok() && listen->port >= 0 && listen->port <= 65535);
  for (const qk::ModelToLoad& model : options.models) {
    QK_CHECK(!model.name.empty() && !model.path.empty());
    QK_CHECK(model.sha256.empty() || model.sha256.size() == 64);
  }
  QK_CHECK(options.threads >= 0);
  CheckLimits(options.limits);
  CheckUsers(options.access.users);
  QK_CHECK(options.shutdown_grace >= absl::ZeroDuration());
  QK_CHECK(options.keepalive > absl::ZeroDuration());
  QK_CHECK(options.keepalive_timeout > absl::ZeroDuration());
  if (options.spool.has_value()) {
    QK_CHECK(!options.spool->directory.empty());
    QK_CHECK(options.spool->most.bytes > 0);
    QK_CHECK(options.spool->ttl > absl::ZeroDuration());
  }
  QK_CHECK(!options.model_admin.enabled || !options.model_admin.root.empty());
  QK_CHECK(options.model_admin.max_models >= 0);
  QK_CHECK(options.model_admin.max_bytes >= 0);
}

// Checks the configuration as at a start, without reading other files.
absl::Status ReadConfig(const std::string& text) {
  QK_ASSIGN_OR_RETURN(const auto config, qk::ParseConfig(text, "config"));
  QK_ASSIGN_OR_RETURN(const auto options,
                      qk::OptionsFromConfig(config, "config"));
  CheckOptions(options);
  return qk::CheckAccess(options);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  google::protobuf::SetLogHandler(nullptr);  // as the server does
  const std::string text(reinterpret_cast<const char*>(data), size);
  const absl::Status status = ReadConfig(text);
  if (!status.ok()) qk::fuzz::CheckMessage(status);
  CheckUsersFile(text);
  return 0;
}
