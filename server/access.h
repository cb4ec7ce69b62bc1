// What a server knows of its callers, kept up to date: users and TLS files,
// which are read again when they change.
#ifndef QKSCOPE_SERVER_ACCESS_H_
#define QKSCOPE_SERVER_ACCESS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/security/server_credentials.h"
#include "server/file_watch.h"
#include "server/identity.h"
#include "server/log.h"
#include "server/options.h"
#include "server/tls_credentials.h"

namespace qk {

class Access {
 public:
  // Errors name key and file. `log` outlives it.
  static absl::StatusOr<std::unique_ptr<Access>> Create(
      const ServerOptions& options, Log* log);

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
  Access(const ServerOptions& options, Log* log);
  absl::Status Load(const ServerOptions& options);
  void Warn(const ServerOptions& options);
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

#endif  // QKSCOPE_SERVER_ACCESS_H_
