// The users and the TLS files of a server, which are read again when they
// change.
#ifndef QKSCOPE_SERVER_ACCESS_ACCESS_H_
#define QKSCOPE_SERVER_ACCESS_ACCESS_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/security/server_credentials.h"
#include "server/access/access_options.h"
#include "server/access/identity.h"
#include "server/access/tls_credentials.h"
#include "server/common/file_watch.h"
#include "server/common/log.h"

namespace qk {

class Access {
 public:
  // Errors name the key and the file. `loopback`: only this machine, or a
  // proxy, can reach the listener. `log` must outlive the object.
  static absl::StatusOr<std::unique_ptr<Access>> Create(
      const AccessOptions& options, bool loopback, Log* log);

  const Identity* identity() const { return identity_.get(); }
  // The listener's credentials.
  std::shared_ptr<grpc::ServerCredentials> credentials() const;

  // When the certificate that new connections get expires. nullopt: no TLS.
  std::optional<absl::Time> certificate_expiry() const;

  struct ReloadResult {
    std::string part;  // "users" or "tls"
    bool changed = false;
    std::string text;      // describes what is now in use
    absl::Status failure;  // if not OK, the old files stay in use
  };
  // Reads the files again at once.
  std::vector<ReloadResult> Reload();

 private:
  Access(const AccessOptions& options, Log* log);
  absl::Status Load(const AccessOptions& options);
  void LogWarnings(bool loopback);
  // A failure with this message is not logged again.
  ReloadResult ReloadUsers(absl::string_view known_failure = "");
  ReloadResult ReloadTls(absl::string_view known_failure = "");
  void WarnIfCertificateInvalid();

  Log* const log_;
  std::unique_ptr<Identity> identity_;
  std::shared_ptr<TlsCredentials> tls_;  // nullptr: plaintext
  // Declared last: their threads use the members above.
  FileWatch users_watch_;
  FileWatch tls_watch_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_ACCESS_H_
