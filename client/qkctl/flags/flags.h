// Command-line flags of one subcommand: their types, and the text of --help.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_FLAGS_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/flag_parser.h"

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

  // As FlagParser::Parse.
  absl::StatusOr<std::vector<std::string>> Parse(
      const std::vector<std::string>& arguments, bool stop_at_word = false) {
    return parser_.Parse(arguments, stop_at_word);
  }

  std::string Help() const;

 private:
  struct HelpEntry {
    std::string left;  // "--name VALUE"
    std::string help;
    std::string section;
  };

  template <typename T, typename Parser>
  void AddParsed(const std::string& name, const std::string& value_name,
                 const std::string& help, std::optional<T>* target,
                 Parser parse);
  void AddHelp(const std::string& name, const std::string& value_name,
               const std::string& help);

  FlagParser parser_;
  std::vector<HelpEntry> help_;
  std::string section_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_FLAGS_H_
