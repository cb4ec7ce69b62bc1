// The listener: accepts connections and hands them to gRPC.
//
// gRPC's own listener stops accepting for good once it runs out of file
// descriptors (CVE-2023-4785). This one closes at once the connections that
// would use what is reserved for other things, and lets an address wait whose
// ended connections gRPC has yet to free.
#ifndef QKSCOPE_SERVER_NET_ACCEPTOR_H_
#define QKSCOPE_SERVER_NET_ACCEPTOR_H_

#include <sys/socket.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
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
#include "server/net/ended_connections.h"

namespace qk {

class Acceptor {
 public:
  struct Options {
    std::string address;  // "HOST:PORT"; a name stands for all its addresses
    // TCP_USER_TIMEOUT: how long sent data may stay unacknowledged, or a peer's
    // receive window closed.
    absl::Duration peer_timeout = absl::Seconds(10);
    // A connection whose descriptor would be this one or a higher one is closed
    // at once (DescriptorShares::connections_end).
    int descriptors_end = std::numeric_limits<int>::max();
  };
  // Binds and listens. Registers every connection with `connections`; it and
  // `log` must outlive the acceptor.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(
      const Options& options, Connections* connections, Log* log);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  int port() const { return port_; }

  // Takes over a connected descriptor, on the acceptor's thread.
  using ConnectionHandler = std::function<void(int listener, int connection)>;
  // `on_probe` receives the connections that ConnectProbe makes.
  void Start(ConnectionHandler on_connection, ConnectionHandler on_probe);
  // Closes the listener; connections stay open.
  void Stop();

  // Connects this process to its own listener. The connection is accepted even
  // if all other descriptors are in use. The caller owns the descriptor.
  absl::StatusOr<int> ConnectProbe(absl::Duration timeout);

 private:
  Acceptor(Connections* connections, Log* log)
      : connections_(connections), log_(log) {}

  absl::Status Bind(const sockaddr* address, socklen_t size,
                    absl::Duration peer_timeout);
  bool listening() const ABSL_LOCKS_EXCLUDED(mutex_);
  void Loop();
  // Returns false if there are no descriptors left; try again later.
  bool AcceptSome(int listener);
  struct Waiting {
    int listener = -1;
    int fd = -1;
    sockaddr_storage peer = {};
  };
  // Hands the connection over or, if its address has too many that have ended,
  // lets it wait.
  void HandOver(const Waiting& connection);
  // Once a tick: hands over those that need not wait any longer, in order, and
  // closes those that have ended.
  void HandOverWaiting();
  void CountShed();

  Connections* const connections_;
  Log* const log_;
  int port_ = 0;
  int stop_event_ = -1;      // eventfd
  int descriptors_end_ = 0;  // Options::descriptors_end
  ConnectionHandler on_connection_;
  ConnectionHandler on_probe_;
  // The thread's own.
  EndedConnections ended_;
  std::deque<Waiting> waiting_;
  absl::Time waiting_seen_ = absl::InfinitePast();
  int64_t shed_ = 0;  // since the last log line
  absl::Time shed_logged_ = absl::InfinitePast();

  mutable Mutex mutex_;
  std::vector<int> listeners_ ABSL_GUARDED_BY(mutex_);
  // The probes' own ends, by EndpointName.
  std::set<std::string> probes_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_ACCEPTOR_H_
