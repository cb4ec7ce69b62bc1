#include "server/net/ended_connections.h"

#include <linux/tcp.h>
#include <netinet/in.h>

#include <algorithm>

namespace qk {
namespace {

// From Linux's include/net/tcp_states.h: ours alone is open still, or none is.
constexpr int kTcpClose = 7;
constexpr int kTcpCloseWait = 8;

// 0: `fd` is no socket.
uint64_t CookieOf(int fd) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie
                                                                    : 0;
}

std::string NetworkOf(const sockaddr_storage& peer) {
  if (peer.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(peer);
    return {reinterpret_cast<const char*>(&v4.sin_addr), sizeof(v4.sin_addr)};
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(peer);
  const auto* bytes = reinterpret_cast<const char*>(&v6.sin6_addr);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) return {bytes + 12, 4};
  return {bytes, 8};
}

}  // namespace

bool PeerHasClosed(int fd) {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
         (info.tcpi_state == kTcpClose || info.tcpi_state == kTcpCloseWait);
}

void EndedConnections::Add(int fd, const sockaddr_storage& peer) {
  const uint64_t cookie = CookieOf(fd);
  if (cookie == 0) return;
  addresses_[NetworkOf(peer)].sockets.push_back({fd, cookie});
}

bool EndedConnections::TooMany(const sockaddr_storage& peer, absl::Time now) {
  const auto found = addresses_.find(NetworkOf(peer));
  if (found == addresses_.end()) return false;
  Address& address = found->second;
  if (now - address.counted >= absl::Milliseconds(kTickMs)) {
    auto& sockets = address.sockets;
    sockets.erase(std::remove_if(sockets.begin(), sockets.end(),
                                 [](const Socket& one) {
                                   return CookieOf(one.fd) != one.cookie;
                                 }),
                  sockets.end());
    address.ended = static_cast<int>(
        std::count_if(sockets.begin(), sockets.end(),
                      [](const Socket& one) { return PeerHasClosed(one.fd); }));
    address.counted = now;
    if (sockets.empty()) {
      addresses_.erase(found);
      return false;
    }
  }
  return address.ended >= kMost;
}

}  // namespace qk
