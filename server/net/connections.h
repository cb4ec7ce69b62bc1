// The open connections by their peers, so that a connection which gRPC cannot
// end can be shut down.
//
// gRPC completes a cancelled call's write only when its connection has nothing
// in flight. If the peer reads nothing from its socket, that never happens, and
// gRPC does not send such a peer its pings either.
#ifndef QKSCOPE_SERVER_NET_CONNECTIONS_H_
#define QKSCOPE_SERVER_NET_CONNECTIONS_H_

#include <sys/socket.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "engine/base/mutex.h"

namespace qk {

// "ADDRESS:PORT", without brackets or a scope. Identifies one end of a
// connection.
std::string EndpointName(const sockaddr_storage& address);

// Thread-safe.
class Connections {
 public:
  // gRPC owns `fd` from now on and may close it, so its peer is checked before
  // each use.
  void Add(int fd, const sockaddr_storage& peer) ABSL_LOCKS_EXCLUDED(mutex_);
  // Duplicates the descriptor of the connection with `peer`, which has the form
  // of grpc::ServerContext::peer(). The caller must close it. -1: there is no
  // such connection.
  int Duplicate(const std::string& peer) const ABSL_LOCKS_EXCLUDED(mutex_);
  // The number of connections that are open now.
  int64_t CountOpen() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable Mutex mutex_;
  // Maps in both directions. A descriptor stays until a later connection has
  // the same number.
  std::map<std::string, int> descriptors_ ABSL_GUARDED_BY(mutex_);
  std::map<int, std::string> peers_ ABSL_GUARDED_BY(mutex_);
};

// Watches the connection of a call that has ended except for one write. Not
// thread-safe.
class StuckConnection {
 public:
  // `peer` is the argument of Connections::Duplicate. It is kept here, because
  // a cancelled call no longer knows its peer.
  explicit StuckConnection(std::string peer) : peer_(std::move(peer)) {}

  // Call repeatedly. Shuts the connection down and returns true if it has bytes
  // to send and its peer has acknowledged none since a sample that is at least
  // `patience` old. (A healthy connection must survive: other calls may share
  // it.)
  bool ShutDownIfStuck(const Connections& connections, absl::Time now,
                       absl::Duration patience);

 private:
  struct Sample {
    absl::Time time;
    uint64_t acknowledged = 0;  // bytes, since the connection began
  };
  const std::string peer_;
  std::optional<Sample> last_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_CONNECTIONS_H_
