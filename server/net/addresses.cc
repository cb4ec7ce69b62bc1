#include "server/net/addresses.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/file_error.h"
#include "server/common/text.h"

namespace qk {
namespace {

absl::Status TryBind(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return BindError(errno);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const bool bound =
      bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, 1) == 0;
  const int error = errno;
  close(fd);
  return bound ? absl::OkStatus() : BindError(error);
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(const std::string& address) {
  const auto bad = [&](absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat(
        problem, ", got '", Echo(address), "' (expected HOST:PORT)"));
  };
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return bad("no host or port");
  HostPort out;
  out.host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  const bool digits = !port.empty() &&
                      port.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || !absl::SimpleAtoi(port, &out.port) || out.port > 65535) {
    return bad("port must be in [0, 65535]");
  }
  if (out.host.front() == '[' && out.host.back() == ']') {
    out.host = out.host.substr(1, out.host.size() - 2);
  } else if (out.host.find(':') != std::string::npos) {
    return bad("an IPv6 host needs brackets");
  }
  return out;
}

bool IsLoopback(const std::string& host) {
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    return (ntohl(v4.s_addr) >> 24) == IN_LOOPBACKNET;
  }
  in6_addr v6;
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) {
    return IN6_IS_ADDR_LOOPBACK(&v6) ||
           (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == IN_LOOPBACKNET);
  }
  return host == "localhost";
}

absl::StatusOr<AddressList> ResolveListening(const std::string& address) {
  QK_ASSIGN_OR_RETURN(const HostPort where, ParseHostPort(address));
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(
      where.host.c_str(), absl::StrCat(where.port).c_str(), &hints, &found);
  if (error != 0) {
    const bool later =
        error == EAI_AGAIN || error == EAI_MEMORY || error == EAI_SYSTEM;
    return absl::Status(later ? absl::StatusCode::kUnavailable
                              : absl::StatusCode::kInvalidArgument,
                        absl::StrCat("cannot resolve '", Echo(address),
                                     "': ", gai_strerror(error)));
  }
  return AddressList(found, freeaddrinfo);
}

absl::Status BindError(int error) {
  if (error == EADDRINUSE || error == EADDRNOTAVAIL || error == EAFNOSUPPORT) {
    return absl::FailedPreconditionError(std::strerror(error));
  }
  return ErrnoStatus(error, std::strerror(error));
}

absl::Status ProbeAddress(const std::string& address) {
  QK_ASSIGN_OR_RETURN(const AddressList found, ResolveListening(address));
  const absl::Status status = TryBind(*found);
  if (status.ok()) return status;
  return absl::Status(
      status.code(),
      absl::StrCat("cannot bind '", Echo(address), "': ", status.message()));
}

}  // namespace qk
