// What --check-config looks at: everything that would keep a server with this
// configuration from starting or from serving anybody.
#ifndef QKSCOPE_SERVER_CONFIG_CONFIG_CHECK_H_
#define QKSCOPE_SERVER_CONFIG_CONFIG_CHECK_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "qkscope/v1/config.pb.h"
#include "server/config/options.h"

namespace qk {

struct ConfigFindings {
  // Each names a key, or a file and a line.
  std::vector<absl::Status> problems;
  // What works, but probably not as meant.
  std::vector<std::string> warnings;
};

// `options` must come from `config`. Reads files, also the weights of models
// whose sha256 is given; binds the addresses for a moment, and makes nothing.
ConfigFindings CheckConfiguration(const ::qkscope::v1::ServerConfig& config,
                                  const ServerOptions& options);

// Whether the addresses could be bound now. Errors name the key.
absl::Status CheckListen(const ServerOptions& options);
absl::Status CheckMetricsListen(const ServerOptions& options);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONFIG_CONFIG_CHECK_H_
