#include "client/qkctl/flags/flags.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/qkctl/flags/text_parse.h"

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
  parser_.AddValue(name, value_name, set);
  AddText(name, value_name, help);
}

void FlagSet::AddText(const std::string& name, const std::string& value_name,
                      const std::string& help, bool repeatable) {
  texts_.push_back({name, value_name, help, section_, {}, repeatable});
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
  parser_.AddValue(name, value_name, set, /*repeatable=*/true);
  AddText(name, value_name, help, /*repeatable=*/true);
}

void FlagSet::Add(const std::string& name, const std::string& help,
                  bool* target) {
  parser_.AddSwitch(name, target);
  AddText(name, "", help);
}

void FlagSet::Offer(const std::string& values) {
  texts_.back().offered = absl::StrSplit(values, ", ");
}

void FlagSet::Section(const std::string& title) { section_ = title; }

std::string FlagSet::Help() const {
  std::string help;
  std::string section;
  for (const FlagText& flag : texts_) {
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
