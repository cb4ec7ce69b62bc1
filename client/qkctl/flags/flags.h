// Command-line flags of one subcommand: parsing, and the text of --help.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_FLAGS_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_FLAGS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace qk::client {

class FlagSet {
 public:
  // Adds a flag `--name VALUE`. `target` must outlive Parse. A vector collects
  // the values of a repeated flag; any other flag may be given only once.
  void Add(const std::string& name, const std::string& value_name,
           const std::string& help, std::optional<std::string>* target);
  void Add(const std::string& name, const std::string& value_name,
           const std::string& help, std::vector<std::string>* target);
  void Add(const std::string& name, const std::string& value_name,
           const std::string& help, std::optional<int32_t>* target);
  void Add(const std::string& name, const std::string& value_name,
           const std::string& help, std::optional<uint64_t>* target);
  void Add(const std::string& name, const std::string& value_name,
           const std::string& help, std::optional<double>* target);
  // Adds a switch `--name`.
  void Add(const std::string& name, const std::string& help, bool* target);
  // Help() lists the flags added after this call under the title.
  void Section(const std::string& title);

  // Parses `--name VALUE` and `--name=VALUE`; "--" ends the flags. Returns the
  // other arguments. `stop_at_word` ends the parsing at the first of them.
  absl::StatusOr<std::vector<std::string>> Parse(
      const std::vector<std::string>& arguments, bool stop_at_word = false);

  std::string Help() const;

 private:
  struct Flag {
    std::string name;
    std::string value_name;  // empty: a switch
    std::string help;
    std::function<absl::Status(const std::string&)> set;
    bool repeatable = false;
    bool seen = false;
    std::string section;
  };

  template <typename T, typename Parser>
  void AddParsed(const std::string& name, const std::string& value_name,
                 const std::string& help, std::optional<T>* target,
                 Parser parse);
  absl::StatusOr<Flag*> Find(const std::string& name);
  absl::Status Set(Flag* flag, const std::string& value);

  std::vector<Flag> flags_;
  std::string section_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_FLAGS_H_
