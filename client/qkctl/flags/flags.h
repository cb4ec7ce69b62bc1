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

struct FlagText {
  std::string name;
  std::string value_name;  // empty: a switch
  std::string help;
  std::string section;
  std::vector<std::string> offered;  // values that completion offers
  bool repeatable = false;
};

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
  // Has completion offer these values for the flag added last, or for each part
  // of its list. They are joined by ", ", as EnumNames does.
  void Offer(const std::string& values);
  // Help() lists the flags added after this call under the title.
  void Section(const std::string& title);

  // As FlagParser::Parse.
  absl::StatusOr<std::vector<std::string>> Parse(
      const std::vector<std::string>& arguments, bool stop_at_word = false) {
    return parser_.Parse(arguments, stop_at_word);
  }

  std::string Help() const;
  // In the order in which they were added.
  const std::vector<FlagText>& texts() const { return texts_; }

 private:
  template <typename T, typename Parser>
  void AddParsed(const std::string& name, const std::string& value_name,
                 const std::string& help, std::optional<T>* target,
                 Parser parse);
  void AddText(const std::string& name, const std::string& value_name,
               const std::string& help, bool repeatable = false);

  FlagParser parser_;
  std::vector<FlagText> texts_;
  std::string section_;
};

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_FLAGS_H_
