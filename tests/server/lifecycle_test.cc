// Tests the listener, and what systemd is told about it.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "server/net/acceptor.h"
#include "server/net/self_check.h"
#include "server/net/systemd.h"
#include "tests/server/server_testing.h"

namespace qk {
namespace {

using testing::ServerTest;

// An answer takes milliseconds; kShort is long enough to see that none comes.
constexpr absl::Duration kPatience = absl::Seconds(300);
constexpr absl::Duration kShort = absl::Milliseconds(300);

class LifecycleTest : public ServerTest {
 protected:
  std::unique_ptr<Acceptor> Listen(const std::string& address) {
    auto acceptor = Acceptor::Listen({address}, &connections_, &log_);
    EXPECT_TRUE(acceptor.ok()) << acceptor.status();
    return acceptor.ok() ? *std::move(acceptor) : nullptr;
  }

  Connections connections_;
};

TEST_F(LifecycleTest, AServerAnswersItselfInAnyState) {
  StartServer(TinyOptions());
  EXPECT_TRUE(server_->CheckSelf(kPatience).ok());  // it loads
  ASSERT_TRUE(server_->LoadModels().ok());
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(server_->CheckSelf(kPatience).ok());
  server_->BeginDrain();
  EXPECT_TRUE(server_->CheckSelf(kPatience).ok());
  server_->Stop();
  EXPECT_FALSE(server_->CheckSelf(kPatience).ok());
}

TEST_F(LifecycleTest, AListenerThatNobodyServesFailsTheCheck) {
  const auto acceptor = Listen("127.0.0.1:0");
  // Nobody accepts the connection: only the kernel answers.
  EXPECT_FALSE(CheckSelf(acceptor.get(), kShort).ok());
  // The connection is accepted, but nothing follows.
  std::vector<int> kept;
  const auto keep = [&](int, int fd) { kept.push_back(fd); };
  acceptor->Start(keep, keep);
  EXPECT_FALSE(CheckSelf(acceptor.get(), kShort).ok());
  acceptor->Stop();
  EXPECT_FALSE(kept.empty());
  for (int fd : kept) close(fd);
}

TEST_F(LifecycleTest, ProbesAreToldFromOtherConnections) {
  for (const char* address :
       {"127.0.0.1:0", "0.0.0.0:0", "localhost:0", "[::1]:0", "[::]:0"}) {
    SCOPED_TRACE(address);
    auto listening = Acceptor::Listen({address}, &connections_, &log_);
    if (!listening.ok() && address[0] == '[') continue;  // no IPv6 here
    ASSERT_TRUE(listening.ok()) << listening.status();
    Acceptor& acceptor = **listening;
    EXPECT_GT(acceptor.port(), 0);
    std::atomic<int> others = 0, probes = 0;
    acceptor.Start(
        [&](int, int fd) {
          ++others;
          close(fd);
        },
        [&](int, int fd) {
          ++probes;
          close(fd);
        });
    for (int i = 0; i < 3; ++i) {
      const auto probe = acceptor.ConnectProbe(kPatience);
      ASSERT_TRUE(probe.ok()) << probe.status();
      close(*probe);
    }
    const bool v6 = std::string(address)[0] == '[';
    if (!v6) {
      const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in to = {};
      to.sin_family = AF_INET;
      to.sin_port = htons(acceptor.port());
      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
      close(fd);
    }
    const absl::Time give_up = absl::Now() + kPatience;
    while (probes + others < (v6 ? 3 : 4) && absl::Now() < give_up) {
      absl::SleepFor(absl::Milliseconds(2));
    }
    EXPECT_EQ(probes, 3);
    EXPECT_EQ(others, v6 ? 0 : 1);
  }
}

TEST_F(LifecycleTest, APortIsNotShared) {
  const auto first = Listen("127.0.0.1:0");
  const auto second = Acceptor::Listen(
      {"127.0.0.1:" + std::to_string(first->port())}, &connections_, &log_);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().message().find("in use"), std::string::npos)
      << second.status();
}

// What systemd would receive.
class Notified {
 public:
  explicit Notified(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
              0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  ~Notified() {
    close(fd_);
    for (const char* name :
         {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
      unsetenv(name);
    }
  }
  // Returns an empty string if nothing came in that time.
  std::string Next(absl::Duration patience) {
    pollfd polled = {fd_, POLLIN, 0};
    if (poll(&polled, 1,
             static_cast<int>(absl::ToInt64Milliseconds(patience))) <= 0) {
      return "";
    }
    char text[256];
    const ssize_t size = recv(fd_, text, sizeof(text), 0);
    return size > 0 ? std::string(text, size) : "";
  }

 private:
  const int fd_;
};

TEST_F(LifecycleTest, TheWatchdogIsFedWhileTheCheckIsGood) {
  const testing::TempFolder folder;
  Notified notified(folder.path() + "/socket");
  setenv("WATCHDOG_USEC", "40000", 1);
  setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
  const Systemd systemd = Systemd::FromEnvironment();
  EXPECT_EQ(systemd.watchdog(), absl::Milliseconds(40));
  Log quiet(LogLevel::kError);
  std::atomic<bool> good = true;
  std::atomic<int> bad_checks = 0;
  {
    const Watchdog watchdog(
        systemd,
        [&](absl::Duration timeout) {
          // Three checks fit into the rest of the period after a good one.
          EXPECT_EQ(timeout, absl::Milliseconds(10));
          if (good) return absl::OkStatus();
          ++bad_checks;
          return absl::UnavailableError("deaf");
        },
        &quiet);
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(notified.Next(kPatience), "WATCHDOG=1");
    good = false;
    while (bad_checks == 0) absl::SleepFor(absl::Milliseconds(5));
    while (!notified.Next(absl::ZeroDuration()).empty()) {
    }
    const int before = bad_checks;
    while (bad_checks < before + 3) absl::SleepFor(absl::Milliseconds(5));
    EXPECT_EQ(notified.Next(absl::ZeroDuration()), "");
    good = true;
    EXPECT_EQ(notified.Next(kPatience), "WATCHDOG=1");
  }
  systemd.Notify("STOPPING=1");
  std::string last;
  while (last != "STOPPING=1") {
    last = notified.Next(kPatience);
    ASSERT_FALSE(last.empty());
  }
}

// A check that is late once costs its own WATCHDOG=1 and no other.
TEST_F(LifecycleTest, TheWatchdogTriesAgainAfterALateAnswer) {
  const testing::TempFolder folder;
  Notified notified(folder.path() + "/socket");
  setenv("WATCHDOG_USEC", "40000", 1);
  std::atomic<int> checks = 0;
  {
    const Watchdog watchdog(
        Systemd::FromEnvironment(),
        [&](absl::Duration) {
          const int n = ++checks;
          if (n % 2 == 0) return absl::UnavailableError("late");
          return absl::OkStatus();
        },
        &log_);
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(notified.Next(kPatience), "WATCHDOG=1");
  }
  EXPECT_GE(checks, 5);
}

TEST_F(LifecycleTest, WithoutSystemdNothingIsSaid) {
  const Systemd systemd = Systemd::FromEnvironment();
  EXPECT_EQ(systemd.watchdog(), absl::ZeroDuration());
  systemd.Notify("READY=1");
  const Watchdog watchdog(
      systemd,
      [](absl::Duration) {
        ADD_FAILURE() << "nobody asked";
        return absl::OkStatus();
      },
      &log_);
}

}  // namespace
}  // namespace qk
