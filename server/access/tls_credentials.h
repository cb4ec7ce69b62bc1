// gRPC credentials of a listener whose certificate can be replaced while the
// server runs: new connections get the new certificate, existing connections
// keep theirs.
//
// grpc::experimental::TlsServerCredentials and its file watcher are not used,
// because they refuse all connections while the files do not fit together.
#ifndef QKSCOPE_SERVER_ACCESS_TLS_CREDENTIALS_H_
#define QKSCOPE_SERVER_ACCESS_TLS_CREDENTIALS_H_

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/mutex.h"
#include "grpc/grpc_security.h"
#include "grpcpp/security/server_credentials.h"
#include "server/access/tls_files.h"

namespace qk {

class TlsCredentials : public grpc::ServerCredentials {
 public:
  // Fails as ReadTlsFiles does. The server must hold the shared_ptr as long as
  // it listens.
  static absl::StatusOr<std::shared_ptr<TlsCredentials>> Create(
      const TlsOptions& options);
  ~TlsCredentials() override;

  // Reads the files again. On failure the certificate in use stays.
  absl::Status Reload();
  TlsMaterial material() const;

  // CallRecord authenticates the calls.
  void SetAuthMetadataProcessor(
      const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  TlsCredentials(const TlsOptions& options, TlsMaterial material);

  int AddPortToServer(const std::string& address, grpc_server* server) override;
  // gRPC calls it before each handshake.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config);
  grpc_ssl_certificate_config_reload_status FetchConfig(
      grpc_ssl_server_certificate_config** config) ABSL_LOCKS_EXCLUDED(mutex_);

  const TlsOptions options_;
  mutable Mutex mutex_;
  TlsMaterial material_ ABSL_GUARDED_BY(mutex_);
  bool fetched_ ABSL_GUARDED_BY(mutex_) = false;  // material_ is what gRPC has
  grpc_server_credentials* credentials_ = nullptr;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_TLS_CREDENTIALS_H_
