#include "client/qkctl/flags/connection_flags.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/files/file_io.h"
#include "engine/base/check.h"

namespace qk::client {

void ConnectionFlags::AddTo(const ClientOptions& client,
                            std::optional<double>* timeout_s,
                            std::optional<int32_t>* retries, FlagSet* flags) {
  flags->Section("Common flags");
  flags->Add(
      "server", "ADDR",
      absl::StrCat("default ", client.server,
                   " (environment: QKSCOPE_SERVER); or file:///PATH, a file or "
                   "folder that lists servers"),
      &server);
  flags->Add("timeout", "SECONDS", "give up after this time (default: never)",
             timeout_s);
  flags->Add("retries", "N",
             "analyze, analyze-many, result: retry this often if the server is "
             "busy or cannot be reached (default 0); streams of --resumable "
             "requests and kept results are resumed so often, at least 3 times",
             retries);
  flags->Add("token-file", "FILE",
             "file with the bearer token (environment: QKSCOPE_TOKEN, the "
             "token itself)",
             &token_file);
  flags->Add("tls", "use TLS and the system's authorities", &tls);
  flags->Add("tls-ca", "FILE", "use TLS and trust this authority (PEM)",
             &tls_ca);
  flags->Add("tls-cert", "FILE", "use TLS with this client certificate (PEM)",
             &tls_cert);
  flags->Add("tls-key", "FILE", "key of the client certificate (PEM)",
             &tls_key);
  flags->Add("tls-server-name", "NAME",
             "name in the server's certificate, if it differs from --server",
             &tls_server_name);
  flags->Add("help", "show this text", &help);
}

absl::Status ConnectionFlags::Apply(ClientOptions* client) const {
  if (server.has_value()) client->server = *server;
  if (token_file.has_value()) {
    QK_ASSIGN_OR_RETURN(const std::string text, ReadFile(*token_file, kSecret));
    client->token = std::string(absl::StripAsciiWhitespace(text));
    if (!IsSendableToken(client->token)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--token-file: ", *token_file, " contains no token"));
    }
  }
  if (!client->token.empty() && !IsSendableToken(client->token)) {
    return absl::InvalidArgumentError(
        "QKSCOPE_TOKEN: must be printable ASCII without spaces");
  }
  if (tls_cert.has_value() != tls_key.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(tls_cert.has_value() ? "--tls-key" : "--tls-cert",
                     ": must also be given"));
  }
  if (!tls && !tls_ca.has_value() && !tls_cert.has_value() &&
      !tls_server_name.has_value()) {
    return absl::OkStatus();
  }
  if (!client->tls.has_value()) client->tls.emplace();
  if (tls_ca.has_value()) {
    QK_ASSIGN_OR_RETURN(client->tls->ca, ReadFile(*tls_ca, kSecret));
  }
  if (tls_cert.has_value()) {
    QK_ASSIGN_OR_RETURN(client->tls->certificate, ReadFile(*tls_cert, kSecret));
    QK_ASSIGN_OR_RETURN(client->tls->key, ReadFile(*tls_key, kSecret));
  }
  if (tls_server_name.has_value()) client->tls->server_name = *tls_server_name;
  return absl::OkStatus();
}

}  // namespace qk::client
