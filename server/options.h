// What the server is told at start, and where it comes from: a text-proto
// file, overridden by flags.
#ifndef QKSCOPE_SERVER_OPTIONS_H_
#define QKSCOPE_SERVER_OPTIONS_H_

#include <netdb.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/backend.h"
#include "qkscope/v1/config.pb.h"
#include "server/limits.h"
#include "server/log.h"
#include "server/parse_config.h"
#include "server/result_store.h"
#include "server/tls_files.h"
#include "server/users.h"

namespace qk {

struct ModelToLoad {
  std::string name;
  std::string path;
  ComputeType compute = ComputeType::kF32;
  std::string sha256;  // expected; empty: any
};

// The service ModelAdmin.
struct ModelAdminOptions {
  enum class Eviction { kNever, kLru, kManual };

  bool enabled = false;
  std::string root;
  std::vector<std::string> allowed_sha256;  // lower case; empty: any
  Eviction eviction = Eviction::kNever;
  int max_models = 0;     // 0: no limit
  int64_t max_bytes = 0;  // 0: no limit
};

struct ServerOptions {
  std::string version;
  std::string listen = "127.0.0.1:7461";
  std::string metrics_listen = "127.0.0.1:9461";  // empty: none
  std::vector<ModelToLoad> models;
  int threads = 0;  // 0: the cores
  Limits limits;
  absl::Duration shutdown_grace = absl::Seconds(30);
  absl::Duration keepalive = absl::Seconds(20);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  LogLevel log_level = LogLevel::kInfo;
  bool log_prompts = false;
  std::optional<ResultStore::Options> spool;  // nullopt: no results are kept

  // Who may call. Of a configuration file with users its path, too, for they
  // are read again.
  std::vector<UserEntry> users;
  std::string config_file;
  std::string users_file;  // empty: none
  bool allow_anonymous_network = false;
  TlsOptions tls;
  ModelAdminOptions model_admin;
  // Reflection answers everybody.
  std::optional<bool> reflection;

  bool has_users() const { return !users.empty() || !users_file.empty(); }
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

// Reads every model's files but not its weights: one line per model that could
// not be served.
std::vector<std::string> CheckModelFiles(const ServerOptions& options);

// Splits "HOST:PORT" ("[::1]:0" too). The host may be a name.
struct HostPort {
  std::string host;
  int port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);
// What `address` stands for, to listen there. INVALID_ARGUMENT: nothing.
using AddressList = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;
absl::StatusOr<AddressList> ResolveListening(const std::string& address);
// Whether it is an address that only this machine can reach, or `localhost`.
bool IsLoopback(const std::string& host);
// Whether the address could be bound now.
absl::Status ProbeAddress(const std::string& address);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OPTIONS_H_
