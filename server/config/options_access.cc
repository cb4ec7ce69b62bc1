// The checks of options.h that look at who may call.
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "server/access/users_config.h"
#include "server/common/text.h"
#include "server/config/options.h"
#include "server/net/addresses.h"

namespace qk {

absl::Status CheckAccess(const ServerOptions& options) {
  for (const UserEntry& user : options.access.users) {
    if (user.subject.empty() ||
        options.access.tls.requires_client_certificate())
      continue;
    return absl::InvalidArgumentError(
        absl::StrCat(user.where, ".subject: needs tls.client_ca_file"));
  }
  if (options.model_admin.enabled && !options.access.has_users()) {
    return absl::InvalidArgumentError(
        "model_admin: needs users or users_file, because only operators may "
        "use it");
  }
  QK_ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort(options.listen));
  if (!IsLoopback(listen.host) && !options.access.behind_proxy &&
      !options.access.allow_anonymous_network) {
    return absl::InvalidArgumentError(absl::StrCat(
        "listen: '", Echo(options.listen),
        "' can be reached by other machines, also by those without "
        "credentials; put an HTTP/2 proxy in front and set behind_proxy: true, "
        "or set allow_anonymous_network: true"));
  }
  return absl::OkStatus();
}

absl::Status CheckAccessFiles(const ServerOptions& options) {
  if (options.access.tls.enabled()) {
    QK_RETURN_IF_ERROR(ReadTlsFiles(options.access.tls).status());
  }
  QK_ASSIGN_OR_RETURN(
      std::vector<UserEntry> users,
      ReadUsers(options.access.config_file, options.access.users,
                options.access.users_file));
  return Users::Create(std::move(users)).status();
}

}  // namespace qk
