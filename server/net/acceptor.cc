#include "server/net/acceptor.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/monotonic.h"
#include "server/common/text.h"
#include "server/net/addresses.h"

namespace qk {
namespace {

// Pause before the next try while there are no descriptors.
constexpr int kRetryMs = 10;
// Others are looked after in between.
constexpr int kAcceptAtOnce = 64;
constexpr absl::Duration kLogEvery = absl::Seconds(1);

absl::Status SystemError(const char* what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

template <typename T>
void SetOption(int fd, int level, int name, T value) {
  setsockopt(fd, level, name, &value, sizeof(value));
}

void SetPort(int port, sockaddr* address) {
  if (address->sa_family == AF_INET) {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(port);
  } else if (address->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(port);
  }
}

int PortOf(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET
                   ? reinterpret_cast<const sockaddr_in&>(address).sin_port
                   : reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
}

// A wildcard address is reached through loopback from this machine.
void ReplaceWildcard(sockaddr_storage* address) {
  if (address->ss_family == AF_INET) {
    in_addr& v4 = reinterpret_cast<sockaddr_in*>(address)->sin_addr;
    if (v4.s_addr == htonl(INADDR_ANY)) v4.s_addr = htonl(INADDR_LOOPBACK);
  } else {
    in6_addr& v6 = reinterpret_cast<sockaddr_in6*>(address)->sin6_addr;
    if (IN6_IS_ADDR_UNSPECIFIED(&v6)) v6 = in6addr_loopback;
  }
}

absl::Status AwaitConnected(int fd, absl::Duration timeout) {
  pollfd connecting = {fd, POLLOUT, 0};
  const int ready = poll(&connecting, 1,
                         static_cast<int>(absl::ToInt64Milliseconds(timeout)));
  if (ready == 0) return absl::DeadlineExceededError("connect: no answer");
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (ready > 0 && error == 0) return absl::OkStatus();
  errno = error;
  return SystemError("connect");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(
    const Options& options, Connections* connections, Log* log) {
  QK_ASSIGN_OR_RETURN(const HostPort where, ParseHostPort(options.address));
  QK_ASSIGN_OR_RETURN(const AddressList found,
                      ResolveListening(options.address));
  std::unique_ptr<Acceptor> acceptor(new Acceptor(connections, log));
  acceptor->port_ = where.port;
  acceptor->descriptors_end_ = options.descriptors_end;
  acceptor->stop_event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (acceptor->stop_event_ < 0) return SystemError("eventfd");
  absl::Status status;
  for (const addrinfo* one = found.get(); one != nullptr; one = one->ai_next) {
    // All addresses share the port that the first of them got.
    SetPort(acceptor->port_, one->ai_addr);
    const absl::Status bound =
        acceptor->Bind(one->ai_addr, one->ai_addrlen, options.peer_timeout);
    if (status.ok()) status = bound;
  }
  // A name may resolve to addresses that this machine does not have.
  if (acceptor->listening()) return acceptor;
  return absl::Status(status.code(),
                      absl::StrCat("cannot bind '", Echo(options.address),
                                   "': ", status.message()));
}

absl::Status Acceptor::Bind(const sockaddr* address, socklen_t size,
                            absl::Duration peer_timeout) {
  const int fd =
      socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return BindError(errno);
  absl::Cleanup close_fd = [fd] { close(fd); };
  SetOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  // Connections inherit both options.
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
            static_cast<int>(absl::ToInt64Milliseconds(peer_timeout)));
  if (address->sa_family == AF_INET6) {
    SetOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  }
  sockaddr_storage bound = {};
  socklen_t bound_size = sizeof(bound);
  if (bind(fd, address, size) != 0 || listen(fd, SOMAXCONN) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &bound_size) != 0) {
    return BindError(errno);
  }
  port_ = PortOf(bound);
  MutexLock lock(&mutex_);
  listeners_.push_back(fd);
  std::move(close_fd).Cancel();
  return absl::OkStatus();
}

Acceptor::~Acceptor() {
  Stop();
  if (stop_event_ >= 0) close(stop_event_);
}

void Acceptor::Start(ConnectionHandler on_connection,
                     ConnectionHandler on_probe) {
  on_connection_ = std::move(on_connection);
  on_probe_ = std::move(on_probe);
  thread_ = std::thread([this] { Loop(); });
}

void Acceptor::Stop() {
  if (stop_event_ >= 0) eventfd_write(stop_event_, 1);
  if (thread_.joinable()) thread_.join();
  for (const Waiting& waiting : waiting_) close(waiting.fd);
  waiting_.clear();
  MutexLock lock(&mutex_);
  for (int fd : listeners_) close(fd);
  listeners_.clear();
}

bool Acceptor::listening() const {
  MutexLock lock(&mutex_);
  return !listeners_.empty();
}

void Acceptor::Loop() {
  std::vector<pollfd> polled = {{stop_event_, POLLIN, 0}};
  {
    MutexLock lock(&mutex_);
    for (int fd : listeners_) polled.push_back({fd, POLLIN, 0});
  }
  for (;;) {
    poll(polled.data(), polled.size(),
         waiting_.empty() ? -1 : EndedConnections::kTickMs);
    HandOverWaiting();
    bool short_of_descriptors = false;
    for (size_t i = 1; i < polled.size(); ++i) {
      if (polled[i].revents != 0) {
        short_of_descriptors |= !AcceptSome(polled[i].fd);
      }
    }
    if (short_of_descriptors) poll(polled.data(), 1, kRetryMs);
    if (polled[0].revents != 0) return;
  }
}

bool Acceptor::AcceptSome(int listener) {
  for (int i = 0; i < kAcceptAtOnce; ++i) {
    sockaddr_storage peer = {};
    socklen_t size = sizeof(peer);
    const int fd = accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return errno == EAGAIN;
    }
    bool probe = false;
    {
      MutexLock lock(&mutex_);
      probe = probes_.erase(EndpointName(peer)) > 0;
    }
    if (probe) {
      on_probe_(listener, fd);
    } else if (fd < descriptors_end_) {
      HandOver({listener, fd, peer});
    } else {
      close(fd);
      CountShed();
    }
  }
  return true;
}

void Acceptor::HandOver(const Waiting& connection) {
  if (ended_.TooMany(connection.peer, MonotonicNow())) {
    waiting_.push_back(connection);
    return;
  }
  ended_.Add(connection.fd, connection.peer);
  connections_->Add(connection.fd, connection.peer);
  on_connection_(connection.listener, connection.fd);
}

void Acceptor::HandOverWaiting() {
  const absl::Time now = MonotonicNow();
  if (now - waiting_seen_ < absl::Milliseconds(EndedConnections::kTickMs)) {
    return;
  }
  waiting_seen_ = now;
  std::deque<Waiting> waiting;
  waiting.swap(waiting_);
  for (const Waiting& connection : waiting) {
    if (PeerHasClosed(connection.fd)) {
      close(connection.fd);
    } else {
      HandOver(connection);
    }
  }
}

void Acceptor::CountShed() {
  ++shed_;
  const absl::Time now = MonotonicNow();
  if (now - shed_logged_ < kLogEvery) return;
  log_->Warn("connections_shed",
             {{"count", shed_}, {"reason", "too many open descriptors"}});
  shed_logged_ = now;
  shed_ = 0;
}

absl::StatusOr<int> Acceptor::ConnectProbe(absl::Duration timeout) {
  sockaddr_storage to = {}, from = {};
  socklen_t size = sizeof(to);
  {
    MutexLock lock(&mutex_);
    if (listeners_.empty()) return absl::UnavailableError("not listening");
    getsockname(listeners_[0], reinterpret_cast<sockaddr*>(&to), &size);
  }
  ReplaceWildcard(&to);
  from = to;
  SetPort(0, reinterpret_cast<sockaddr*>(&from));
  const int fd =
      socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return SystemError("socket");
  absl::Cleanup close_fd = [fd] { close(fd); };
  // The socket is bound first, so that its address is known before the acceptor
  // sees the connection.
  socklen_t from_size = size;
  if (bind(fd, reinterpret_cast<sockaddr*>(&from), size) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&from), &from_size) != 0) {
    return SystemError("bind");
  }
  const std::string key = EndpointName(from);
  {
    MutexLock lock(&mutex_);
    probes_.insert(key);
  }
  absl::Status status;
  if (connect(fd, reinterpret_cast<sockaddr*>(&to), size) != 0) {
    status = errno == EINPROGRESS ? AwaitConnected(fd, timeout)
                                  : SystemError("connect");
  }
  if (status.ok()) {
    std::move(close_fd).Cancel();
    return fd;
  }
  // The socket is still bound, so no other connection can have this address.
  MutexLock lock(&mutex_);
  probes_.erase(key);
  return status;
}

}  // namespace qk
