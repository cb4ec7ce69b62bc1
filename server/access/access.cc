#include "server/access/access.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/base/check.h"
#include "server/access/users_config.h"
#include "server/common/guarded.h"

namespace qk {
namespace {

std::vector<std::string> UserFiles(const AccessOptions& options) {
  std::vector<std::string> files;
  for (const std::string& file : {options.config_file, options.users_file}) {
    if (!file.empty()) files.push_back(file);
  }
  return files;
}

// Calls `reload`, and tells it how it failed the last time.
template <typename Reload>
std::function<absl::Status()> Remembering(Reload reload) {
  return [reload, last = std::string()]() mutable {
    const absl::Status failure = reload(last);
    last = std::string(failure.message());
    return failure;
  };
}

}  // namespace

absl::StatusOr<std::unique_ptr<Access>> Access::Create(
    const AccessOptions& options, bool loopback, Log* log) {
  std::unique_ptr<Access> access(new Access(options, log));
  QK_RETURN_IF_ERROR(access->Load(options));
  access->LogWarnings(loopback);
  access->users_watch_.Start(
      Remembering([a = access.get()](const std::string& last) {
        return a->ReloadUsers(last).failure;
      }));
  access->tls_watch_.Start(
      Remembering([a = access.get()](const std::string& last) {
        return a->ReloadTls(last).failure;
      }));
  return access;
}

// The watches record the files' state before Load reads them, so no change is
// missed.
Access::Access(const AccessOptions& options, Log* log)
    : log_(log),
      users_watch_(UserFiles(options)),
      tls_watch_(options.tls.Files()) {}

absl::Status Access::Load(const AccessOptions& options) {
  if (options.tls.enabled()) {
    QK_ASSIGN_OR_RETURN(tls_, TlsCredentials::Create(options.tls));
  }
  if (!options.has_users()) {
    identity_ = Identity::Anonymous();
    return absl::OkStatus();
  }
  QK_ASSIGN_OR_RETURN(identity_, Identity::Create([=] {
                        return ReadUsers(options.config_file, options.users,
                                         options.users_file);
                      }));
  return absl::OkStatus();
}

void Access::LogWarnings(bool loopback) {
  if (!loopback && identity_->requires_credentials() && tls_ == nullptr) {
    log_->Warn("access", {{"reason",
                           "tokens travel in plaintext; configure TLS or put "
                           "a TLS proxy in front"}});
  }
  if (identity_->requires_credentials() && identity_->size() == 0) {
    log_->Warn("access",
               {{"reason", "there are no users, so nobody can call"}});
  }
  WarnIfCertificateInvalid();
}

void Access::WarnIfCertificateInvalid() {
  if (tls_ == nullptr) return;
  const TlsMaterial material = tls_->material();
  const absl::Time now = absl::Now();
  if (material.not_before <= now && now < material.not_after) return;
  log_->Warn("tls", {{"reason", "the certificate is not valid now"},
                     {"not_before", absl::FormatTime(material.not_before)},
                     {"not_after", absl::FormatTime(material.not_after)}});
}

std::shared_ptr<grpc::ServerCredentials> Access::credentials() const {
  if (tls_ == nullptr) return grpc::InsecureServerCredentials();
  return tls_;
}

std::optional<absl::Time> Access::certificate_expiry() const {
  if (tls_ == nullptr) return std::nullopt;
  return tls_->material().not_after;
}

std::vector<Access::ReloadResult> Access::Reload() {
  std::vector<ReloadResult> parts;
  if (identity_->requires_credentials()) parts.push_back(ReloadUsers());
  if (tls_ != nullptr) parts.push_back(ReloadTls());
  return parts;
}

Access::ReloadResult Access::ReloadUsers(absl::string_view known_failure) {
  ReloadResult out;
  out.part = "users";
  out.failure =
      Guarded("users", [&] { return identity_->Reload(&out.changed); });
  out.text = absl::StrCat(identity_->size(), " users");
  if (out.failure.ok()) {
    log_->Info("users_reloaded",
               {{"users", static_cast<int64_t>(identity_->size())}});
  } else if (out.failure.message() != known_failure) {
    log_->Error("users_not_reloaded",
                {{"reason", std::string(out.failure.message())}});
  }
  return out;
}

Access::ReloadResult Access::ReloadTls(absl::string_view known_failure) {
  ReloadResult out;
  out.part = "tls";
  const TlsMaterial before = tls_->material();
  out.failure = Guarded("tls", [&] { return tls_->Reload(); });
  const TlsMaterial now = tls_->material();
  const std::string not_after = absl::FormatTime(now.not_after);
  out.text = absl::StrCat("certificate valid until ", not_after);
  out.changed = before.certificate != now.certificate ||
                before.key != now.key || before.client_ca != now.client_ca;
  if (out.failure.ok()) {
    log_->Info("tls_reloaded", {{"not_after", not_after}});
    WarnIfCertificateInvalid();
  } else if (out.failure.message() != known_failure) {
    log_->Error("tls_not_reloaded",
                {{"reason", std::string(out.failure.message())}});
  }
  return out;
}

}  // namespace qk
