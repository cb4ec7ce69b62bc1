// The options that say who may call.
#ifndef QKSCOPE_SERVER_ACCESS_ACCESS_OPTIONS_H_
#define QKSCOPE_SERVER_ACCESS_ACCESS_OPTIONS_H_

#include <string>
#include <vector>

#include "server/access/tls_files.h"
#include "server/access/users.h"

namespace qk {

struct AccessOptions {
  std::vector<UserEntry> users;
  // The configuration file's path if it has users, which are read again.
  std::string config_file;
  std::string users_file;  // empty: none
  // Whether other machines may connect without a proxy in between, and call if
  // no credentials are required.
  bool allow_anonymous_network = false;
  bool behind_proxy = false;  // only a proxy can reach the listener
  TlsOptions tls;

  bool has_users() const { return !users.empty() || !users_file.empty(); }
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_ACCESS_OPTIONS_H_
