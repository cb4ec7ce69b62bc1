// What the server is told at start, and where it comes from: a text-proto
// file, overridden by flags.
#ifndef QKSCOPE_SERVER_CONFIG_OPTIONS_H_
#define QKSCOPE_SERVER_CONFIG_OPTIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "qkscope/v1/config.pb.h"
#include "server/access/access_options.h"
#include "server/common/limits.h"
#include "server/common/log.h"
#include "server/common/parse_config.h"
#include "server/models/model_options.h"
#include "server/results/result_store.h"

namespace qk {

struct ServerOptions {
  std::string version;
  std::string listen = "127.0.0.1:7461";
  std::string metrics_listen = "127.0.0.1:9461";  // empty: none
  std::vector<ModelToLoad> models;
  std::string backend = "auto";  // CheckBackendName (create_backend.h) knows
  int threads = 0;               // of the CPU backend; 0: the cores
  Limits limits;
  absl::Duration shutdown_grace = absl::Seconds(30);
  absl::Duration keepalive = absl::Seconds(20);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  LogLevel log_level = LogLevel::kInfo;
  bool log_prompts = false;
  std::optional<ResultStore::Options> spool;  // nullopt: no results are kept

  AccessOptions access;
  ModelAdminOptions model_admin;
  // Reflection answers everybody.
  std::optional<bool> reflection;
};

// Checks every value. Errors: `source: key: problem, got value`. Touches
// neither files nor sockets.
absl::StatusOr<ServerOptions> OptionsFromConfig(
    const ::qkscope::v1::ServerConfig& config, const std::string& source);

// What concerns several keys at once: nobody but this machine may reach a
// server that asks for no credentials, unless that was said in so many words;
// a user known by a certificate needs somebody to ask for it; and ModelAdmin
// needs operators.
absl::Status CheckAccess(const ServerOptions& options);

// Reads the files of users and TLS. Errors name file and key.
absl::Status CheckAccessFiles(const ServerOptions& options);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONFIG_OPTIONS_H_
