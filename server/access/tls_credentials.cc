#include "server/access/tls_credentials.h"

#include <utility>

#include "engine/base/check.h"
#include "grpc/grpc.h"
#include "grpc/grpc_security_constants.h"

namespace qk {

absl::StatusOr<std::shared_ptr<TlsCredentials>> TlsCredentials::Create(
    const TlsOptions& options) {
  QK_ASSIGN_OR_RETURN(TlsMaterial material, ReadTlsFiles(options));
  return std::shared_ptr<TlsCredentials>(
      new TlsCredentials(options, std::move(material)));
}

TlsCredentials::TlsCredentials(const TlsOptions& options, TlsMaterial material)
    : options_(options), material_(std::move(material)) {
  const auto request =
      options.requires_client_certificate()
          ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
          : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
  credentials_ = grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(
          request, &TlsCredentials::Fetch, this));
}

TlsCredentials::~TlsCredentials() {
  grpc_server_credentials_release(credentials_);
}

absl::Status TlsCredentials::Reload() {
  QK_ASSIGN_OR_RETURN(TlsMaterial material, ReadTlsFiles(options_));
  MutexLock lock(&mutex_);
  material_ = std::move(material);
  fetched_ = false;
  return absl::OkStatus();
}

TlsMaterial TlsCredentials::material() const {
  MutexLock lock(&mutex_);
  return material_;
}

int TlsCredentials::AddPortToServer(const std::string& address,
                                    grpc_server* server) {
  return grpc_server_add_http2_port(server, address.c_str(), credentials_);
}

grpc_ssl_certificate_config_reload_status TlsCredentials::Fetch(
    void* self, grpc_ssl_server_certificate_config** config) {
  return static_cast<TlsCredentials*>(self)->FetchConfig(config);
}

grpc_ssl_certificate_config_reload_status TlsCredentials::FetchConfig(
    grpc_ssl_server_certificate_config** config) {
  MutexLock lock(&mutex_);
  if (fetched_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair = {material_.key.c_str(),
                                           material_.certificate.c_str()};
  // gRPC requires authorities even if it does not ask clients for certificates;
  // it then ignores them.
  const std::string& authorities =
      material_.client_ca.empty() ? material_.certificate : material_.client_ca;
  *config =
      grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
  fetched_ = true;
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

}  // namespace qk
