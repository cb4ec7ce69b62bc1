// Whether a TCP port takes connections.
#ifndef QKSCOPE_CLIENT_QKCTL_COMMANDS_OPEN_PORT_H_
#define QKSCOPE_CLIENT_QKCTL_COMMANDS_OPEN_PORT_H_

#include <string>

namespace qk::client {

// Connects to HOST:PORT, which takes 2 seconds for each of the host's addresses
// at most, and closes the connection. Returns why there was none; empty if
// there was one.
std::string ConnectionProblem(const std::string& address);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_COMMANDS_OPEN_PORT_H_
