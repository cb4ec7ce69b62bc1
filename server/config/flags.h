// The command line of qkscoped.
#ifndef QKSCOPE_SERVER_CONFIG_FLAGS_H_
#define QKSCOPE_SERVER_CONFIG_FLAGS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "qkscope/v1/config.pb.h"

namespace qk {

struct Flags {
  ::qkscope::v1::ServerConfig config;  // only fields that flags set
  std::optional<std::string> config_file;
  bool check_config = false;
  bool anonymous_network = false;
  bool behind_proxy = false;
  bool help = false;
  bool version = false;
};

// `arguments` excludes the program's name. Errors name the flag.
absl::StatusOr<Flags> ParseFlags(const std::vector<std::string>& arguments);

extern const char kHelp[];

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONFIG_FLAGS_H_
