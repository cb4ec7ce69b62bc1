#include "client/qkctl/flags/flags.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/qkctl/flags/text_parse.h"
#include "engine/base/nearest_name.h"

namespace qk::client {
namespace {

constexpr int kHelpColumn = 27;  // where the flags' descriptions begin
constexpr size_t kHelpWidth = 80 - kHelpColumn;

std::string Wrapped(const std::string& text) {
  std::string wrapped;
  size_t length = 0;
  for (const std::string& word : SplitText(text, " ")) {
    if (length > 0 && length + 1 + word.size() > kHelpWidth) {
      absl::StrAppendFormat(&wrapped, "\n%*s", kHelpColumn, "");
      length = 0;
    } else if (length > 0) {
      wrapped += ' ';
      ++length;
    }
    wrapped += word;
    length += word.size();
  }
  return wrapped;
}

}  // namespace

template <typename T, typename Parser>
void FlagSet::AddParsed(const std::string& name, const std::string& value_name,
                        const std::string& help, std::optional<T>* target,
                        Parser parse) {
  auto set = [target, parse](const std::string& text) -> absl::Status {
    absl::StatusOr<T> value = parse(text);
    if (!value.ok()) return value.status();
    *target = *std::move(value);
    return absl::OkStatus();
  };
  flags_.push_back({name, value_name, help, set, false, false, section_});
}

void FlagSet::Add(const std::string& name, const std::string& value_name,
                  const std::string& help, std::optional<std::string>* target) {
  AddParsed(name, value_name, help, target, [](const std::string& text) {
    return absl::StatusOr<std::string>(text);
  });
}

void FlagSet::Add(const std::string& name, const std::string& value_name,
                  const std::string& help, std::optional<int32_t>* target) {
  AddParsed(name, value_name, help, target, ParseInt);
}

void FlagSet::Add(const std::string& name, const std::string& value_name,
                  const std::string& help, std::optional<uint64_t>* target) {
  AddParsed(name, value_name, help, target, ParseUnsigned);
}

void FlagSet::Add(const std::string& name, const std::string& value_name,
                  const std::string& help, std::optional<double>* target) {
  AddParsed(name, value_name, help, target, ParseNumber);
}

void FlagSet::Add(const std::string& name, const std::string& value_name,
                  const std::string& help, std::vector<std::string>* target) {
  auto set = [target](const std::string& text) {
    target->push_back(text);
    return absl::OkStatus();
  };
  flags_.push_back({name, value_name, help, set, true, false, section_});
}

void FlagSet::Add(const std::string& name, const std::string& help,
                  bool* target) {
  auto set = [target](const std::string& text) -> absl::Status {
    absl::StatusOr<bool> value = ParseBool(text);
    if (!value.ok()) return value.status();
    *target = *value;
    return absl::OkStatus();
  };
  flags_.push_back({name, "", help, set, false, false, section_});
}

void FlagSet::Section(const std::string& title) { section_ = title; }

absl::StatusOr<FlagSet::Flag*> FlagSet::Find(const std::string& name) {
  std::vector<std::string> names;
  for (Flag& flag : flags_) {
    if (flag.name == name) return &flag;
    names.push_back(flag.name);
  }
  const std::string meant = NearestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown flag --", name,
      meant.empty() ? "" : absl::StrCat("; did you mean --", meant, "?")));
}

absl::Status FlagSet::Set(Flag* flag, const std::string& value) {
  if (flag->seen && !flag->repeatable) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", flag->name, " is given twice"));
  }
  flag->seen = true;
  absl::Status status = flag->set(value);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag->name, ": ", std::string(status.message())));
}

absl::StatusOr<std::vector<std::string>> FlagSet::Parse(
    const std::vector<std::string>& arguments, bool stop_at_word) {
  std::vector<std::string> rest;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      rest.insert(rest.end(), arguments.begin() + i + 1, arguments.end());
      break;
    }
    if (!absl::StartsWith(argument, "--")) {
      if (stop_at_word) {
        rest.assign(arguments.begin() + i, arguments.end());
        break;
      }
      rest.push_back(argument);
      continue;
    }
    const size_t equals = argument.find('=');
    const bool has_value = equals != std::string::npos;
    absl::StatusOr<Flag*> flag =
        Find(argument.substr(2, has_value ? equals - 2 : std::string::npos));
    if (!flag.ok()) return flag.status();
    std::string value = has_value ? argument.substr(equals + 1) : "true";
    if (!has_value && !(*flag)->value_name.empty()) {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "--", (*flag)->name, " needs a value: ", (*flag)->value_name));
      }
      value = arguments[++i];
    }
    absl::Status status = Set(*flag, value);
    if (!status.ok()) return status;
  }
  return rest;
}

std::string FlagSet::Help() const {
  std::string help;
  std::string section;
  for (const Flag& flag : flags_) {
    if (flag.section != section) {
      section = flag.section;
      absl::StrAppend(&help, "\n", section, ":\n");
    }
    const std::string left = absl::StrCat(
        "--", flag.name, flag.value_name.empty() ? "" : " ", flag.value_name);
    const bool fits = left.size() < kHelpColumn - 2;
    absl::StrAppendFormat(&help, "  %-*s", fits ? kHelpColumn - 2 : 0, left);
    if (!fits) absl::StrAppendFormat(&help, "\n%*s", kHelpColumn, "");
    absl::StrAppend(&help, Wrapped(flag.help), "\n");
  }
  return help;
}

}  // namespace qk::client
