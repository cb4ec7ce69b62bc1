// Parses the command lines of all programs.
#ifndef QKSCOPE_ENGINE_BASE_FLAG_PARSER_H_
#define QKSCOPE_ENGINE_BASE_FLAG_PARSER_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace qk {

class FlagParser {
 public:
  // Takes a flag's value. The parser puts the flag's name before its error.
  using Setter = std::function<absl::Status(const std::string& value)>;

  // Adds `--name VALUE` or `--name=VALUE`. The argument after the name is
  // always its value, even if it looks like a flag or is a negative number.
  // `value_name` is for error messages. A flag that is not `repeatable` may be
  // given once.
  void AddValue(const std::string& name, const std::string& value_name,
                Setter set, bool repeatable = false);
  // Adds `--name`, `--name=true` or `--name=false`, which may be given once.
  // `target` must outlive Parse.
  void AddSwitch(const std::string& name, bool* target);

  // Returns the arguments that are not flags. "--" ends the flags; if
  // `stop_at_word` is set, the first argument that is not a flag does, too.
  // Fails with INVALID_ARGUMENT, which names the flag and, if the flag is
  // unknown, the one with the nearest name.
  absl::StatusOr<std::vector<std::string>> Parse(
      const std::vector<std::string>& arguments, bool stop_at_word);

 private:
  struct Flag {
    std::string name;
    std::string value_name;  // empty: a switch
    Setter set;
    bool repeatable = false;
    bool seen = false;
  };

  absl::StatusOr<Flag*> Find(const std::string& name);

  std::vector<Flag> flags_;
};

}  // namespace qk

#endif  // QKSCOPE_ENGINE_BASE_FLAG_PARSER_H_
