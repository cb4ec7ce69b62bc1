// Tests cutting connections, with real sockets.
#include "server/net/connections.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace qk {
namespace {

sockaddr_storage NameOfSocket(int fd,
                              decltype(&getsockname) get = getsockname) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  EXPECT_EQ(get(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  return address;
}

int PortOf(int fd) {
  const sockaddr_storage address = NameOfSocket(fd);
  return ntohs(address.ss_family == AF_INET
                   ? reinterpret_cast<const sockaddr_in&>(address).sin_port
                   : reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
}

// A loopback connection whose server end is registered.
class Pair {
 public:
  explicit Pair(Connections* connections, int family = AF_INET) {
    sockaddr_storage address = {};
    address.ss_family = static_cast<sa_family_t>(family);
    socklen_t size = sizeof(sockaddr_in);
    if (family == AF_INET) {
      reinterpret_cast<sockaddr_in*>(&address)->sin_addr.s_addr =
          htonl(INADDR_LOOPBACK);
    } else {
      reinterpret_cast<sockaddr_in6*>(&address)->sin6_addr = in6addr_loopback;
      size = sizeof(sockaddr_in6);
    }
    const int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
        listen(listener, 1) == 0) {
      address = NameOfSocket(listener);
      client = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
      EXPECT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), size),
                0);
      server =
          accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      EXPECT_GE(server, 0);
      connections->Add(server, NameOfSocket(server, getpeername));
    }
    close(listener);
  }
  ~Pair() {
    close(client);
    close(server);
  }

  // Writes until nothing more goes into the socket.
  void Fill() const {
    const std::vector<char> bytes(1 << 20);
    pollfd ready = {server, POLLOUT, 0};
    while (poll(&ready, 1, 300) > 0) {
      EXPECT_GT(write(server, bytes.data(), bytes.size()), 0);
    }
  }

  void ReadSome() const {
    std::vector<char> bytes(8 << 20);
    EXPECT_GT(read(client, bytes.data(), bytes.size()), 0);
  }

  std::string peer() const {
    return absl::StrCat("ipv4:127.0.0.1:", PortOf(client));
  }

  int client = -1, server = -1;
};

bool IsCut(int fd) {
  char byte = 0;
  return send(fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EPIPE;
}

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);
constexpr absl::Duration kSecond = absl::Seconds(1);

TEST(StuckConnectionTest, IsCutWhenItsPeerTakesNothing) {
  Connections connections;
  const Pair pair(&connections), other(&connections);
  pair.Fill();
  StuckConnection stuck(pair.peer());
  EXPECT_FALSE(stuck.ShutDownIfStuck(connections, kStart, kSecond));
  EXPECT_FALSE(
      stuck.ShutDownIfStuck(connections, kStart + kSecond / 2, kSecond));
  EXPECT_FALSE(IsCut(pair.server));
  EXPECT_TRUE(stuck.ShutDownIfStuck(connections, kStart + kSecond, kSecond));
  EXPECT_TRUE(IsCut(pair.server));
  EXPECT_FALSE(IsCut(other.server));
}

TEST(StuckConnectionTest, IsLeftWhileItsPeerTakesSomething) {
  Connections connections;
  const Pair pair(&connections);
  StuckConnection stuck(pair.peer());
  for (int i = 0; i < 3; ++i) {
    pair.Fill();
    EXPECT_FALSE(
        stuck.ShutDownIfStuck(connections, kStart + i * kSecond, kSecond));
    pair.ReadSome();
  }
  EXPECT_FALSE(IsCut(pair.server));
}

TEST(StuckConnectionTest, IsLeftWhenItHasNothingToSend) {
  Connections connections;
  const Pair pair(&connections);
  StuckConnection stuck(pair.peer());
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(
        stuck.ShutDownIfStuck(connections, kStart + i * kSecond, kSecond));
  }
  EXPECT_FALSE(IsCut(pair.server));
}

TEST(ConnectionsTest, AreFoundByGrpcsNames) {
  Connections connections;
  const Pair v4(&connections), v6(&connections, AF_INET6);
  std::vector<std::pair<int, std::string>> names = {{v4.client, v4.peer()}};
  if (v6.client >= 0) {  // this machine has IPv6
    const int port = PortOf(v6.client);
    names.emplace_back(v6.client, absl::StrCat("ipv6:%5B::1%5D:", port));
    names.emplace_back(v6.client, absl::StrCat("ipv6:[::1]:", port));
    names.emplace_back(v6.client, absl::StrCat("ipv6:%5B::1%251%5D:", port));
  }
  for (const auto& [client, name] : names) {
    const int found = connections.Duplicate(name);
    ASSERT_GE(found, 0) << name;
    EXPECT_EQ(send(found, "x", 1, MSG_NOSIGNAL), 1);
    char byte = 0;
    EXPECT_EQ(read(client, &byte, 1), 1);
    EXPECT_EQ(byte, 'x');
    close(found);
  }
  for (const char* name : {"ipv4:127.0.0.1:1", "unix:/tmp/socket", "", ":"}) {
    EXPECT_EQ(connections.Duplicate(name), -1) << name;
  }
}

TEST(ConnectionsTest, ANumberThatIsSomethingElseByNowIsNotTaken) {
  Connections connections;
  const Pair gone(&connections);
  // The old connection's descriptor number now belongs to a file, then to a new
  // connection.
  const int file = open("/dev/null", O_WRONLY | O_CLOEXEC);
  ASSERT_EQ(dup3(file, gone.server, O_CLOEXEC), gone.server);
  EXPECT_EQ(connections.Duplicate(gone.peer()), -1);
  close(file);
  const Pair next(&connections);
  ASSERT_EQ(dup3(next.server, gone.server, O_CLOEXEC), gone.server);
  EXPECT_EQ(connections.Duplicate(gone.peer()), -1);
  connections.Add(gone.server, NameOfSocket(next.server, getpeername));
  EXPECT_EQ(connections.Duplicate(gone.peer()), -1);
  const int found = connections.Duplicate(next.peer());
  EXPECT_GE(found, 0);
  close(found);
}

}  // namespace
}  // namespace qk
