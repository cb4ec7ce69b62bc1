// A list of servers in a file, one HOST:PORT per line, and after it, if the
// server has a name among replicas, that name:
//
//   # comments and empty lines are passed over
//   gpu1.example:7461 a
//   [2001:db8::7]:7461 b
//
// A folder of such files is one list, too: what writes it (a batch job, say)
// adds and removes a file of its own, and files whose names begin with "." are
// passed over.
#ifndef QKSCOPE_CLIENT_CPP_SERVER_LIST_H_
#define QKSCOPE_CLIENT_CPP_SERVER_LIST_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace qk::client {

struct ListedServer {
  std::string address;  // HOST:PORT
  std::string replica;  // empty: not told

  auto operator<=>(const ListedServer&) const = default;
};

// The path of the list that ClientOptions::server names as file:///PATH, or
// nullopt if it names a server.
std::optional<std::string> ServerListPath(absl::string_view server);

// Equal lines count once. INVALID_ARGUMENT: `PATH:LINE: problem`.
absl::StatusOr<std::vector<ListedServer>> ParseServerList(
    absl::string_view text, const std::string& path);

// Reads the file, or all files of the folder in the order of their names. No
// server in it is no error. UNAVAILABLE: it is not there, or the machine cannot
// read it now; INVALID_ARGUMENT: it is something else, or has a bad line. May
// be called on any thread.
absl::StatusOr<std::vector<ListedServer>> ReadServerList(
    const std::string& path);

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_CPP_SERVER_LIST_H_
