#include "server/net/connections.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace qk {
namespace {

// The EndpointName of gRPC's "ipv4:1.2.3.4:5" or "ipv6:%5B::1%25eth0%5D:5".
std::string PeerEndpointName(const std::string& peer) {
  std::string name = peer.substr(peer.find(':') + 1);
  name = absl::StrReplaceAll(name,
                             {{"%5B", ""}, {"%5D", ""}, {"[", ""}, {"]", ""}});
  const size_t scope = name.find('%');
  if (scope != std::string::npos) {
    name.erase(scope, name.rfind(':') - scope);
  }
  return name;
}

// Whether the descriptor is a connection with the peer of this EndpointName.
bool HasPeer(int fd, const std::string& name) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  return getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
         EndpointName(address) == name;
}

}  // namespace

std::string EndpointName(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    return absl::StrCat(text, ":", ntohs(v4.sin_port));
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  const int port = ntohs(v6.sin6_port);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
    inet_ntop(AF_INET, &v6.sin6_addr.s6_addr[12], text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
  }
  return absl::StrCat(text, ":", port);
}

void Connections::Add(int fd, const sockaddr_storage& peer) {
  std::string name = EndpointName(peer);
  MutexLock lock(&mutex_);
  std::string& known = peers_[fd];
  const auto old = descriptors_.find(known);
  if (old != descriptors_.end() && old->second == fd) descriptors_.erase(old);
  descriptors_[name] = fd;
  known = std::move(name);
}

int Connections::Duplicate(const std::string& peer) const {
  const std::string name = PeerEndpointName(peer);
  int fd = -1;
  {
    MutexLock lock(&mutex_);
    const auto found = descriptors_.find(name);
    if (found == descriptors_.end()) return -1;
    fd = found->second;
  }
  // The descriptor may have been closed and reused by now, so its peer is
  // checked.
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return -1;
  if (HasPeer(copy, name)) return copy;
  close(copy);
  return -1;
}

int64_t Connections::CountOpen() const {
  std::map<int, std::string> peers;
  {
    MutexLock lock(&mutex_);
    peers = peers_;
  }
  return std::count_if(peers.begin(), peers.end(), [](const auto& peer) {
    return HasPeer(peer.first, peer.second);
  });
}

bool StuckConnection::ShutDownIfStuck(const Connections& connections,
                                      absl::Time now, absl::Duration patience) {
  if (last_.has_value() && now - last_->time < patience) return false;
  const int fd = connections.Duplicate(peer_);
  if (fd < 0) return false;
  const absl::Cleanup close_fd = [fd] { close(fd); };
  tcp_info info = {};
  socklen_t size = sizeof(info);
  int unsent = 0;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
      ioctl(fd, SIOCOUTQ, &unsent) != 0) {
    return false;
  }
  const bool stuck = unsent > 0 && last_.has_value() &&
                     last_->acknowledged == info.tcpi_bytes_acked;
  last_ = {now, info.tcpi_bytes_acked};
  if (stuck) shutdown(fd, SHUT_RDWR);
  return stuck;
}

}  // namespace qk
