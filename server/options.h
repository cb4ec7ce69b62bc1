// What the server is told at start, and where it comes from: a text-proto
// file, overridden by flags.
#ifndef QKSCOPE_SERVER_OPTIONS_H_
#define QKSCOPE_SERVER_OPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/backend.h"
#include "qkscope/v1/config.pb.h"
#include "server/limits.h"
#include "server/log.h"

namespace qk {

struct ModelToLoad {
  std::string name;
  std::string path;
  ComputeType compute = ComputeType::kF32;
  std::string sha256;  // expected; empty: any
};

struct ServerOptions {
  std::string version;
  std::string listen = "127.0.0.1:7461";
  std::string metrics_listen = "127.0.0.1:9461";  // empty: none
  std::vector<ModelToLoad> models;
  int threads = 0;  // 0: the cores
  Limits limits;
  absl::Duration shutdown_grace = absl::Seconds(30);
  bool reflection = true;
  LogLevel log_level = LogLevel::kInfo;
};

// Parses a configuration file's text. Errors: `file:line: key: problem`, with a
// suggestion for an unknown key.
absl::StatusOr<::qkscope::v1::ServerConfig> ParseConfig(
    const std::string& text, const std::string& file);

// Checks every value. Errors: `source: key: problem, got value`. Touches
// neither files nor sockets.
absl::StatusOr<ServerOptions> OptionsFromConfig(
    const ::qkscope::v1::ServerConfig& config, const std::string& source);

// Reads every model's files but not its weights: one line per model that could
// not be served.
std::vector<std::string> CheckModelFiles(const ServerOptions& options);

// Splits "HOST:PORT" ("[::1]:0" too). The host may be a name.
struct HostPort {
  std::string host;
  int port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);
// Whether the address could be bound now.
absl::Status ProbeAddress(const std::string& address);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OPTIONS_H_
