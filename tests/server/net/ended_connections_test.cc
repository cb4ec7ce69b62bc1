// Tests telling ended connections from others, with real sockets.
#include "server/net/ended_connections.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <vector>

#include "gtest/gtest.h"

namespace qk {
namespace {

sockaddr_storage Peer(const char* address, int port = 1) {
  sockaddr_storage peer = {};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&peer);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&peer);
  if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
  } else {
    EXPECT_EQ(inet_pton(AF_INET6, address, &v6->sin6_addr), 1) << address;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
  }
  return peer;
}

// Connections over loopback, with both ends in this process.
class EndedConnectionsTest : public testing::Test {
 protected:
  EndedConnectionsTest()
      : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    EXPECT_EQ(listen(listener_, 16), 0);
    socklen_t size = sizeof(address_);
    EXPECT_EQ(
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address_), &size),
        0);
  }
  ~EndedConnectionsTest() override {
    for (int fd : servers_) close(fd);
    for (int fd : clients_) close(fd);
    close(listener_);
  }

  // Connects; the server's end counts as one of `peer`.
  void Connect(const sockaddr_storage& peer) {
    clients_.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(clients_.back(), reinterpret_cast<sockaddr*>(&address_),
                      sizeof(address_)),
              0);
    servers_.push_back(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_GE(servers_.back(), 0);
    ended_.Add(servers_.back(), peer);
  }
  // The last client goes, and its server's end has noticed.
  void EndLast(bool reset = false) {
    if (reset) {
      const linger now = {1, 0};
      setsockopt(clients_.back(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(clients_.back());
    clients_.pop_back();
    pollfd hung_up = {servers_.back(), POLLRDHUP, 0};
    ASSERT_EQ(poll(&hung_up, 1, -1), 1);
  }
  bool TooMany(const sockaddr_storage& peer) {
    return ended_.TooMany(
        peer, now_ += absl::Milliseconds(EndedConnections::kTickMs));
  }
  void Close(size_t index) {
    close(servers_[index]);
    servers_[index] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  }

  sockaddr_in address_ = {};
  const int listener_;
  std::vector<int> servers_, clients_;
  EndedConnections ended_;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(EndedConnectionsTest, S13_OpenConnectionsDoNotCount) {
  const sockaddr_storage peer = Peer("10.0.0.1");
  for (int i = 0; i < 2 * EndedConnections::kMost; ++i) Connect(peer);
  EXPECT_FALSE(TooMany(peer));
}

TEST_F(EndedConnectionsTest, S13_AnAddressWaitsForWhatItHasEnded) {
  for (int i = 0; i < EndedConnections::kMost; ++i) {
    const sockaddr_storage peer = Peer("10.0.0.1", i);
    EXPECT_FALSE(TooMany(peer)) << i;
    Connect(peer);
    EXPECT_FALSE(PeerHasClosed(servers_.back()));
    EndLast(i % 2 == 0);
    EXPECT_TRUE(PeerHasClosed(servers_.back()));
  }
  EXPECT_TRUE(TooMany(Peer("10.0.0.1", 9999)));
  EXPECT_TRUE(TooMany(Peer("::ffff:10.0.0.1")));
  EXPECT_FALSE(TooMany(Peer("10.0.0.2")));
  // One is freed, and its number is used again.
  Close(7);
  EXPECT_FALSE(TooMany(Peer("10.0.0.1")));
}

TEST_F(EndedConnectionsTest, S13_ANetworkOfIpv6IsOneAddress) {
  for (int i = 0; i < EndedConnections::kMost; ++i) {
    Connect(Peer("2001:db8:0:1::1"));
    EndLast();
  }
  EXPECT_TRUE(TooMany(Peer("2001:db8:0:1:ffff::2")));
  EXPECT_FALSE(TooMany(Peer("2001:db8:0:2::1")));
}

TEST_F(EndedConnectionsTest, S13_DescriptorsAreLookedAtOnceATick) {
  const sockaddr_storage peer = Peer("10.0.0.1");
  EXPECT_FALSE(TooMany(peer));
  Connect(peer);
  EXPECT_FALSE(TooMany(peer));
  for (int i = 1; i <= EndedConnections::kMost; ++i) {
    Connect(peer);
    EndLast();
  }
  EXPECT_FALSE(ended_.TooMany(peer, now_));
  EXPECT_TRUE(TooMany(peer));
  for (size_t i = 0; i < servers_.size(); ++i) Close(i);
  EXPECT_TRUE(ended_.TooMany(peer, now_));
  EXPECT_FALSE(TooMany(peer));
}

}  // namespace
}  // namespace qk
