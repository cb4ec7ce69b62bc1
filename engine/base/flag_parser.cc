#include "engine/base/flag_parser.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/nearest_name.h"

namespace qk {
namespace {

absl::Status Bad(const std::string& flag, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, problem));
}

}  // namespace

void FlagParser::AddValue(const std::string& name,
                          const std::string& value_name, Setter set,
                          bool repeatable) {
  flags_.push_back({name, value_name, std::move(set), repeatable});
}

void FlagParser::AddSwitch(const std::string& name, bool* target) {
  const auto set = [target](const std::string& text) {
    if (absl::SimpleAtob(text, target)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not true or false"));
  };
  flags_.push_back({name, "", set});
}

absl::StatusOr<FlagParser::Flag*> FlagParser::Find(const std::string& name) {
  std::vector<std::string> names;
  for (Flag& flag : flags_) {
    if (flag.name == name) return &flag;
    names.push_back(flag.name);
  }
  const std::string nearest = NearestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag '--", absl::CHexEscape(name), "'",
      nearest.empty() ? "; see --help"
                      : absl::StrCat("; did you mean '--", nearest, "'?")));
}

absl::StatusOr<std::vector<std::string>> FlagParser::Parse(
    const std::vector<std::string>& arguments, bool stop_at_word) {
  std::vector<std::string> words;
  for (auto it = arguments.begin(); it != arguments.end(); ++it) {
    const bool ends_flags = *it == "--";
    if (ends_flags || (stop_at_word && !absl::StartsWith(*it, "--"))) {
      words.insert(words.end(), it + (ends_flags ? 1 : 0), arguments.end());
      break;
    }
    if (!absl::StartsWith(*it, "--")) {
      words.push_back(*it);
      continue;
    }
    const size_t equals = it->find('=');
    const bool has_value = equals != std::string::npos;
    absl::StatusOr<Flag*> found =
        Find(it->substr(2, has_value ? equals - 2 : std::string::npos));
    if (!found.ok()) return found.status();
    Flag& flag = **found;
    std::string value = has_value ? it->substr(equals + 1) : "true";
    if (!has_value && !flag.value_name.empty()) {
      if (it + 1 == arguments.end()) {
        return Bad(flag.name, " needs a value: " + flag.value_name);
      }
      value = *++it;
    }
    if (flag.seen && !flag.repeatable) return Bad(flag.name, " is given twice");
    flag.seen = true;
    const absl::Status status = flag.set(value);
    if (!status.ok()) {
      return Bad(flag.name, ": " + std::string(status.message()));
    }
  }
  return words;
}

}  // namespace qk
