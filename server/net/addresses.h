// Parses and resolves addresses to listen on.
#ifndef QKSCOPE_SERVER_NET_ADDRESSES_H_
#define QKSCOPE_SERVER_NET_ADDRESSES_H_

#include <netdb.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace qk {

struct HostPort {
  std::string host;  // an address or a name
  int port = 0;
};
// Splits "HOST:PORT". An IPv6 address is written in brackets: "[::1]:0".
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);
using AddressList = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;
// Resolves `address` for listening. INVALID_ARGUMENT if it does not resolve,
// UNAVAILABLE if that is not known now.
absl::StatusOr<AddressList> ResolveListening(const std::string& address);
// What a failed socket, bind or listen says, by its errno. FAILED_PRECONDITION:
// the address is taken, or none of this machine's.
absl::Status BindError(int error);
// Whether `host` is `localhost` or an address that only this machine can reach.
bool IsLoopback(const std::string& host);
// OK if the address could be bound now. Errors are those of BindError and
// ResolveListening.
absl::Status ProbeAddress(const std::string& address);

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_ADDRESSES_H_
