// Finds the user that a call's credentials belong to. Has no gRPC in it.
#ifndef QKSCOPE_SERVER_ACCESS_IDENTITY_H_
#define QKSCOPE_SERVER_ACCESS_IDENTITY_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/base/mutex.h"
#include "server/access/users.h"

namespace qk {

struct Credentials {
  // The values of all `authorization` headers.
  std::vector<absl::string_view> authorization;
  // Common name of the client certificate that TLS has verified.
  std::optional<std::string> subject;
};

// Thread-safe.
class Identity {
 public:
  using Load = std::function<absl::StatusOr<std::vector<UserEntry>>()>;

  // Needs no credentials: every caller is `anonymous`, with the role of a user.
  static std::unique_ptr<Identity> Anonymous();
  // Knows the users that `load` returns, now and at each Reload. If it returns
  // none, nobody can call.
  static absl::StatusOr<std::unique_ptr<Identity>> Create(Load load);

  // UNAUTHENTICATED `missing or invalid token`. If there is an authorization
  // header, there must be exactly one, it must be `Bearer TOKEN` (the word in
  // any case) with a known token, and the certificate is ignored. Without one,
  // the certificate decides.
  absl::StatusOr<std::shared_ptr<const User>> Authenticate(
      const Credentials& credentials) const;

  // Returns nullptr if there is no such user now.
  std::shared_ptr<const User> Find(absl::string_view alias) const;

  // On failure the users stay as they were. Calls in progress keep the user
  // they began with. `changed`: whether the users differ from before.
  absl::Status Reload(bool* changed = nullptr);

  // Whether every caller may use the model. If credentials are needed, there
  // must be users, and each of them may.
  bool EverybodyMayUse(absl::string_view model) const;

  bool requires_credentials() const { return load_ != nullptr; }
  size_t size() const;

 private:
  explicit Identity(Load load);

  std::shared_ptr<const Users> users() const;

  const Load load_;
  const std::shared_ptr<const User> anonymous_;
  // One reload at a time.
  Mutex reload_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  mutable Mutex mutex_;
  std::shared_ptr<const Users> users_ ABSL_GUARDED_BY(mutex_) =
      std::make_shared<Users>();
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_ACCESS_IDENTITY_H_
