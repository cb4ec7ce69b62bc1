// What a server knows of its callers, kept up to date: users and TLS files,
// which are read again when they change.
#ifndef QKSCOPE_SERVER_ACCESS_ACCESS_H_
#define QKSCOPE_SERVER_ACCESS_ACCESS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/security/server_credentials.h"
#include "server/access/access_options.h"
#include "server/access/identity.h"
#include "server/access/tls_credentials.h"
#include "server/common/file_watch.h"
#include "server/common/log.h"

namespace qk {

class Access {
 public:
  // Errors name key and file. `loopback`: only this machine can reach the
  // listener. `log` outlives it.
  static absl::StatusOr<std::unique_ptr<Access>> Create(
      const AccessOptions& options, bool loopback, Log* log);

  const Identity* identity() const { return identity_.get(); }
  // Of the listener.
  std::shared_ptr<grpc::ServerCredentials> credentials() const;

  // Reads the files again, now; what became of each.
  struct Reloaded {
    std::string part;  // "users" or "tls"
    bool changed = false;
    std::string text;      // what is in use now
    absl::Status failure;  // not OK: what was in use stays
  };
  std::vector<Reloaded> Reload();

 private:
  Access(const AccessOptions& options, Log* log);
  absl::Status Load(const AccessOptions& options);
  void Warn(bool loopback);
  Reloaded ReloadUsers();
  Reloaded ReloadTls();
  void WarnOfDates();

  Log* const log_;
  std::unique_ptr<Identity> identity_;
  std::shared_ptr<TlsCredentials> tls_;  // nullptr: plaintext
  // Last: their threads use the above.
  FileWatch users_watch_;
  FileWatch tls_watch_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_ACCESS_H_
