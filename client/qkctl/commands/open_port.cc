#include "client/qkctl/commands/open_port.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"

namespace qk::client {
namespace {

constexpr int kConnectMs = 2000;

std::string ProblemOf(const addrinfo& address) {
  const int fd =
      socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::strerror(errno);
  int error = 0;
  if (connect(fd, address.ai_addr, address.ai_addrlen) != 0) error = errno;
  if (error == EINPROGRESS) {
    pollfd waiting = {fd, POLLOUT, 0};
    socklen_t size = sizeof error;
    if (poll(&waiting, 1, kConnectMs) != 1) {
      error = ETIMEDOUT;
    } else {
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
  }
  close(fd);
  return error == 0 ? "" : std::strerror(error);
}

}  // namespace

std::string ConnectionProblem(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return "it is not HOST:PORT";
  std::string host = address.substr(0, colon);
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(),
                                &hints, &found);
  if (error != 0) return gai_strerror(error);
  std::string problem;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    problem = ProblemOf(*at);
    if (problem.empty()) break;
  }
  freeaddrinfo(found);
  return problem;
}

}  // namespace qk::client
