// Addresses to listen on.
#ifndef QKSCOPE_SERVER_NET_ADDRESSES_H_
#define QKSCOPE_SERVER_NET_ADDRESSES_H_

#include <netdb.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace qk {

// Splits "HOST:PORT" ("[::1]:0" too). The host may be a name.
struct HostPort {
  std::string host;
  int port = 0;
};
absl::StatusOr<HostPort> ParseHostPort(const std::string& address);
// What `address` stands for, to listen there. INVALID_ARGUMENT: nothing.
using AddressList = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;
absl::StatusOr<AddressList> ResolveListening(const std::string& address);
// Whether it is an address that only this machine can reach, or `localhost`.
bool IsLoopback(const std::string& host);
// Whether the address could be bound now.
absl::Status ProbeAddress(const std::string& address);

}  // namespace qk

#endif  // QKSCOPE_SERVER_NET_ADDRESSES_H_
