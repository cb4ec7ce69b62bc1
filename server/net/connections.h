// The open connections by their peers, to cut one that gRPC cannot end.
//
// gRPC tells the end of a cancelled call's write only when its connection has
// nothing in flight. Of a peer that reads nothing from its socket, that is
// never; nor does gRPC send such a peer its pings.
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

// "ADDRESS:PORT", without brackets or a scope: what tells one end from others.
std::string NameOf(const sockaddr_storage& address);

// Thread-safe.
class Connections {
 public:
  // gRPC owns `fd` from now on; it is never used without a look at its peer.
  void Add(int fd, const sockaddr_storage& peer) ABSL_LOCKS_EXCLUDED(mutex_);
  // A descriptor of the connection with `peer`, as grpc::ServerContext::peer()
  // has it, for the caller to close; -1: there is none.
  int Duplicate(const std::string& peer) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable Mutex mutex_;
  // Both ways; a descriptor's number stays until a later connection has it.
  std::map<std::string, int> descriptors_ ABSL_GUARDED_BY(mutex_);
  std::map<int, std::string> peers_ ABSL_GUARDED_BY(mutex_);
};

// Looks again and again at the connection of a call that has ended, but for a
// write. Not thread-safe.
class StuckConnection {
 public:
  // As Connections::Duplicate. A cancelled call no longer knows its peer.
  explicit StuckConnection(std::string peer) : peer_(std::move(peer)) {}

  // Shuts the connection down if it has bytes to send and its peer has
  // acknowledged none since a look `patience` ago or earlier: other calls may
  // share it. True: it did.
  bool Cut(const Connections& connections, absl::Time now,
           absl::Duration patience);

 private:
  struct Look {
    absl::Time time;
    uint64_t acknowledged = 0;  // bytes, ever
  };
  const std::string peer_;
  std::optional<Look> last_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_CONNECTIONS_H_
