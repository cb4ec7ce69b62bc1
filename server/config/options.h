// The server's options. They come from a text-proto file, which flags override.
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
#include "server/common/document.h"
#include "server/common/limits.h"
#include "server/common/log.h"
#include "server/common/parse_config.h"
#include "server/config/device_memory.h"
#include "server/models/model_options.h"
#include "server/observe/activation_options.h"
#include "server/results/result_store.h"

namespace qk {

struct ServerOptions {
  std::string version;
  std::string replica;  // a name for which IsReplicaName is true, or empty
  std::string listen = "127.0.0.1:7461";
  std::string metrics_listen = "127.0.0.1:9461";  // empty: metrics are off
  std::vector<ModelToLoad> models;
  std::string backend = "auto";  // a name that CheckBackendName accepts
  int threads = 0;               // of the host; 0: one per core
  // As engine/create_backend.h has them.
  std::string device;
  DeviceMemory device_memory;
  std::string matmul = "own";
  Limits limits;
  absl::Duration shutdown_grace = absl::Seconds(30);
  absl::Duration keepalive = absl::Seconds(20);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  LogLevel log_level = LogLevel::kInfo;
  std::string log_file;  // empty: stderr
  bool log_prompts = false;
  std::optional<ResultStore::Options> spool;  // nullopt: no results are kept

  WeightCheck check_weights = WeightCheck::kAuto;
  AccessOptions access;
  ModelAdminOptions model_admin;
  ActivationOptions activations;
  // Reflection needs no credentials. nullopt: on if there are no users.
  std::optional<bool> reflection;
  // What the metrics port shows below /docs/.
  std::vector<Document> documents;
};

// Checks every value without opening files or sockets. Errors have the form
// `source: key: problem, got value`. Returns the first of them; `problems`, if
// not nullptr, receives all.
absl::StatusOr<ServerOptions> OptionsFromConfig(
    const ::qkscope::v1::ServerConfig& config, const std::string& source,
    std::vector<absl::Status>* problems = nullptr);

// Checks keys that depend on each other: `listen` must be loopback unless
// behind_proxy or allow_anonymous_network is set; a user with a certificate
// needs tls.client_ca_file; ModelAdmin needs users.
absl::Status CheckAccess(const ServerOptions& options);

// Checks the users file and the TLS files. Errors name the file and the key.
absl::Status CheckAccessFiles(const ServerOptions& options);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONFIG_OPTIONS_H_
