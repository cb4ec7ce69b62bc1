// Connections that their peers have closed, but gRPC has not freed yet.
//
// gRPC takes far longer to free a connection with open calls than a client
// takes to make it, and what waits to be freed keeps its memory and its
// descriptor. So an address that has many of them gets no further connection
// until some are freed.
#ifndef QKSCOPE_SERVER_NET_ENDED_CONNECTIONS_H_
#define QKSCOPE_SERVER_NET_ENDED_CONNECTIONS_H_

#include <sys/socket.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace qk {

// Whether the peer of this TCP socket has closed the connection, or reset it.
bool PeerHasClosed(int fd);

// Not thread-safe.
class EndedConnections {
 public:
  // Of one address (of a /64 network, with IPv6).
  static constexpr int kMost = 64;
  // How often descriptors are looked at.
  static constexpr int kTickMs = 20;

  // gRPC owns `fd` from now on, and may close it.
  void Add(int fd, const sockaddr_storage& peer);
  // Whether kMost connections of the peer's address wait to be freed, as of at
  // most a tick ago.
  bool TooMany(const sockaddr_storage& peer, absl::Time now);

 private:
  // Tells a socket from a later one with the same descriptor.
  struct Socket {
    int fd = -1;
    uint64_t cookie = 0;
  };
  struct Address {
    std::vector<Socket> sockets;
    absl::Time counted = absl::InfinitePast();
    int ended = 0;
  };

  std::map<std::string, Address> addresses_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_ENDED_CONNECTIONS_H_
