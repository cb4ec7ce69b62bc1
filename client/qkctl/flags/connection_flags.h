// The flags that every subcommand has: server, credentials, TLS.
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

  // `client` has the default server that --help shows.
  void AddTo(const ClientOptions& client, std::optional<double>* timeout_s,
             std::optional<int32_t>* retries, FlagSet* flags);
  // Applies the flags that are set, and reads the files that they name.
  absl::Status Apply(ClientOptions* client) const;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_CONNECTION_FLAGS_H_
