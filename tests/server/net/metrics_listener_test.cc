// Tests the listener of the metrics, with real sockets and small limits.
#include "server/net/metrics_listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace qk {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class Client {
 public:
  explicit Client(int port, int receive_buffer = 0)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer,
                 sizeof(receive_buffer));
    }
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    EXPECT_EQ(
        connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
        0);
  }
  ~Client() { close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool Send(const std::string& text) {
    return send(fd_, text.data(), text.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(text.size());
  }
  // Reads until the server closes.
  std::string Read() {
    std::string out;
    char part[4096];
    for (ssize_t n; (n = recv(fd_, part, sizeof(part), 0)) > 0;) {
      out.append(part, static_cast<size_t>(n));
    }
    return out;
  }
  bool open() {
    char byte;
    return recv(fd_, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0;
  }

 private:
  const int fd_;
};

class MetricsListenerTest : public ::testing::Test {
 protected:
  void Start(MetricsListener::Options options = {}) {
    options.address = "127.0.0.1:0";
    auto listener = MetricsListener::Listen(options, [this](
                                                         const MetricsListener::
                                                             Request& request) {
      if (!request.authorization.empty()) {
        return MetricsListener::Answer{
            401, absl::StrJoin(request.authorization, "|")};
      }
      if (request.path != "/metrics") {
        return MetricsListener::Answer{404, absl::StrCat(request.path, "?")};
      }
      return MetricsListener::Answer{200, body_, "text/x-sent"};
    });
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
  }
  std::string Ask(const std::string& request) {
    Client client(listener_->port());
    EXPECT_TRUE(client.Send(request));
    return client.Read();
  }
  std::string Scrape() {
    return Ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  }

  std::string body_ = "qkscope_x 1\n";
  std::unique_ptr<MetricsListener> listener_;
};

TEST_F(MetricsListenerTest, Answers) {
  Start();
  EXPECT_THAT(Scrape(), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Scrape(), HasSubstr("\r\n\r\nqkscope_x 1\n"));
  EXPECT_THAT(Scrape(), HasSubstr("Content-Type: text/x-sent\r\n"));
  EXPECT_THAT(Scrape(),
              HasSubstr("Content-Security-Policy: default-src 'none'; "));
  EXPECT_THAT(Ask("GET /metrics?x=1 HTTP/1.0\r\n\r\n"), HasSubstr("qkscope_x"));
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
              StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Ask("GET /metrics/../etc HTTP/1.1\r\nHost: x\r\n\r\n"),
              HasSubstr("\r\n\r\n/metrics/../etc?"));
  EXPECT_THAT(Ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: "
                  "1000000000\r\n\r\n"),
              StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Ask("nonsense\r\n\r\n"), testing::Not(HasSubstr("qkscope_x")));
}

TEST_F(MetricsListenerTest, S16_PassesCredentialsOn) {
  Start();
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nHost: x\r\nauthorization: Bearer "
                  "a\r\nAuthorization: b\r\n\r\n"),
              testing::AllOf(StartsWith("HTTP/1.1 401 "),
                             HasSubstr("WWW-Authenticate: Bearer"),
                             HasSubstr("\r\n\r\nBearer a|b")));
}

TEST_F(MetricsListenerTest, R31_HeadsThatDoNotEnd) {
  Start();
  const std::string long_part(100'000, 'a');
  for (const std::string& head :
       {"GET /" + long_part, "GET /metrics HTTP/1.1\r\nX: " + long_part}) {
    Client client(listener_->port());
    client.Send(head);
    EXPECT_THAT(client.Read(), testing::Not(HasSubstr("200 ")));
    EXPECT_THAT(Scrape(), HasSubstr("qkscope_x"));
  }
}

TEST_F(MetricsListenerTest, R31_ConnectionsEndWhateverTheySendOrRead) {
  MetricsListener::Options options;
  options.time_limit = absl::Seconds(1);
  body_ = std::string(64 << 20, 'x');  // more than sockets hold
  Start(options);
  Client silent(listener_->port());
  EXPECT_EQ(silent.Read(), "");
  // Each byte would put off a limit on silence alone.
  Client drips(listener_->port());
  while (drips.Send("G")) usleep(50'000);
  Client reads_nothing(listener_->port(), 4096);
  EXPECT_TRUE(reads_nothing.Send("GET /metrics HTTP/1.0\r\n\r\n"));
  Client later(listener_->port());
  EXPECT_EQ(later.Read(), "");
  EXPECT_LT(reads_nothing.Read().size(), body_.size());
}

TEST_F(MetricsListenerTest, R31_TheOldestGivesWay) {
  MetricsListener::Options options;
  options.time_limit = absl::Hours(1);
  options.max_connections = 8;
  Start(options);
  std::vector<std::unique_ptr<Client>> silent;
  for (int i = 0; i < 100; ++i) {
    silent.push_back(std::make_unique<Client>(listener_->port()));
    ASSERT_THAT(Scrape(), HasSubstr("qkscope_x")) << i;
  }
  EXPECT_EQ(silent[0]->Read(), "");
  EXPECT_TRUE(silent.back()->open());
}

TEST_F(MetricsListenerTest, BadAddresses) {
  MetricsListener::Options options;
  const MetricsListener::Handler none = [](const MetricsListener::Request&) {
    return MetricsListener::Answer();
  };
  options.address = "127.0.0.1";
  EXPECT_FALSE(MetricsListener::Listen(options, none).ok());
  Start();
  options.address = absl::StrCat("127.0.0.1:", listener_->port());
  EXPECT_THAT(
      std::string(MetricsListener::Listen(options, none).status().message()),
      HasSubstr("cannot bind"));
}

}  // namespace
}  // namespace qk
