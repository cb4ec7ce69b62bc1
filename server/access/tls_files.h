// Reads a server's certificate, key and client authorities, and checks that
// they fit together before anything is bound or replaced. Has no gRPC in it.
#ifndef QKSCOPE_SERVER_ACCESS_TLS_FILES_H_
#define QKSCOPE_SERVER_ACCESS_TLS_FILES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace qk {

struct TlsOptions {
  std::string certificate_file;  // empty: plaintext
  std::string key_file;
  std::string client_ca_file;  // empty: clients need no certificate

  bool enabled() const { return !certificate_file.empty(); }
  bool requires_client_certificate() const { return !client_ca_file.empty(); }
  std::vector<std::string> Files() const;
};

// PEM.
struct TlsMaterial {
  std::string certificate;
  std::string key;
  std::string client_ca;
  // Validity of the first certificate.
  absl::Time not_before;
  absl::Time not_after;
};

// Errors: `tls.key_file: FILE: problem`.
absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsOptions& options);

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_TLS_FILES_H_
