// The flags that every subcommand has: where the server is, who calls, TLS.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_CONNECTION_FLAGS_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_CONNECTION_FLAGS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "client/cpp/analysis_client.h"
#include "client/qkctl/flags/flags.h"

namespace qk::client {

struct ConnectionFlags {
  std::optional<std::string> server, token_file;
  std::optional<std::string> tls_ca, tls_cert, tls_key, tls_server_name;
  bool tls = false;
  bool help = false;

  // `client` gives the default server that --help tells of.
  void AddTo(const ClientOptions& client, std::optional<double>* timeout_s,
             std::optional<int32_t>* retries, FlagSet* flags);
  // Reads the files that are named. What is not given stays as it is.
  absl::Status Apply(ClientOptions* client) const;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_CONNECTION_FLAGS_H_
