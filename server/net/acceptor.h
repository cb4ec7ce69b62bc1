// The listener: accepts connections and hands them to gRPC.
//
// Not gRPC's own, which goes deaf for good when it runs out of descriptors
// (CVE-2023-4785). This one keeps some back, and closes connections above that
// at once.
#ifndef QKSCOPE_SERVER_NET_ACCEPTOR_H_
#define QKSCOPE_SERVER_NET_ACCEPTOR_H_

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"
#include "server/common/log.h"
#include "server/net/connections.h"

namespace qk {

class Acceptor {
 public:
  struct Options {
    std::string address;  // "HOST:PORT": all addresses of a name
    // How long a peer's machine may leave what is sent unacknowledged, or a
    // peer its socket full.
    absl::Duration peer_timeout = absl::Seconds(10);
  };
  // Binds and listens. `log` and `connections`, which learns of each, outlive
  // it.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(
      const Options& options, Connections* connections, Log* log);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  int port() const { return port_; }

  // Take a connected descriptor, on the acceptor's thread.
  using Handle = std::function<void(int listener, int connection)>;
  // `on_probe`: of the connections that ConnectProbe makes.
  void Start(Handle on_connection, Handle on_probe);
  // Closes the listener; connections stay.
  void Stop();

  // A new connection of this process to the listener; the caller's. It is let
  // in whatever the others have used up.
  absl::StatusOr<int> ConnectProbe(absl::Duration timeout);

 private:
  Acceptor(Connections* connections, Log* log)
      : connections_(connections), log_(log) {}

  absl::Status Bind(const sockaddr* address, socklen_t size,
                    absl::Duration peer_timeout);
  bool listening() const ABSL_LOCKS_EXCLUDED(mutex_);
  void Loop();
  // False: no descriptors; try again later.
  bool AcceptAll(int listener);
  void CountShed();

  Connections* const connections_;
  Log* const log_;
  int port_ = 0;
  int wake_ = -1;    // an eventfd: stop
  int highest_ = 0;  // descriptors from here on are kept back
  Handle on_connection_;
  Handle on_probe_;
  // The thread's own.
  int64_t shed_ = 0;  // since it was last logged
  absl::Time shed_logged_ = absl::InfinitePast();

  mutable Mutex mutex_;
  std::vector<int> listeners_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> probes_
      ABSL_GUARDED_BY(mutex_);  // their own addresses, by NameOf

  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_ACCEPTOR_H_
