// The grammar of command lines, for every program here.
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

  // `--name VALUE` or `--name=VALUE`; whatever follows the name is its value,
  // a negative number or another flag's name included. `value_name` is for
  // error messages. A flag that is not `repeatable` may be given once.
  void AddValue(const std::string& name, const std::string& value_name,
                Setter set, bool repeatable = false);
  // `--name`, `--name=true` or `--name=false`, once. `target` must outlive
  // Parse.
  void AddSwitch(const std::string& name, bool* target);

  // Returns the arguments that are not flags. "--" ends the flags, and so does
  // the first other argument where `stop_at_word` is set. INVALID_ARGUMENT
  // names the flag; for an unknown one it names the nearest that there is.
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
