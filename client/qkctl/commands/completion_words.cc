#include "client/qkctl/commands/completion_words.h"

#include <algorithm>
#include <cstddef>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace qk::client {
namespace {

// What stands before the word that is completed.
struct Before {
  std::vector<std::string> words;  // that are not flags
  std::set<std::string> given;     // names of flags
  std::vector<std::string>
      connection;                     // flags that say how to reach the server
  const FlagText* waiting = nullptr;  // a flag whose value comes next
  bool flags_ended = false;           // by "--"
};

class Completer {
 public:
  Completer(const std::vector<std::string>& words,
            const std::vector<const Command*>& commands,
            const std::vector<FlagText>& global, const AskModels& ask_models)
      : words_(words),
        last_(words.back()),
        commands_(commands),
        global_(global),
        ask_models_(ask_models) {}

  Completion Run() {
    flags_ = &global_;
    CommandDescription description;
    for (size_t i = 0; i + 1 < words_.size(); ++i) {
      Read(words_[i]);
      if (command_ != nullptr || before_.words.size() != 1) continue;
      command_ = Find(before_.words.front());
      if (command_ == nullptr) continue;  // "help", or a mistake
      description = Describe(*command_);
      flags_ = &description.flags;
      before_.words.clear();
    }
    Complete();
    return std::move(result_);
  }

 private:
  const Command* Find(const std::string& name) const {
    for (const Command* command : commands_) {
      if (command->text.name == name) return command;
    }
    return nullptr;
  }

  const FlagText* FindFlag(const std::string& name) const {
    for (const FlagText& flag : *flags_) {
      if (flag.name == name) return &flag;
    }
    return nullptr;
  }

  bool SaysWhere(const std::string& name) const {
    return name != "help" && name != "version" &&
           std::any_of(global_.begin(), global_.end(),
                       [&](const FlagText& flag) { return flag.name == name; });
  }

  // Takes one of the words before the last.
  void Read(const std::string& word) {
    if (before_.waiting != nullptr) {
      if (SaysWhere(before_.waiting->name)) before_.connection.push_back(word);
      before_.waiting = nullptr;
    } else if (before_.flags_ended || !absl::StartsWith(word, "--")) {
      before_.words.push_back(word);
    } else if (word == "--") {
      before_.flags_ended = true;
    } else {
      ReadFlag(word);
    }
  }

  void ReadFlag(const std::string& word) {
    const size_t equals = word.find('=');
    const std::string name = word.substr(2, equals - 2);
    const FlagText* flag = FindFlag(name);
    if (flag == nullptr) return;
    if (!flag->repeatable) before_.given.insert(name);
    if (SaysWhere(name)) before_.connection.push_back(word);
    if (equals == std::string::npos && !flag->value_name.empty()) {
      before_.waiting = flag;
    }
  }

  void Complete() {
    const bool dashes = !before_.flags_ended && absl::StartsWith(last_, "-");
    const size_t equals = last_.find('=');
    if (before_.waiting != nullptr) {
      CompleteValue(*before_.waiting, "");
    } else if (dashes && absl::StartsWith(last_, "--") &&
               equals != std::string::npos) {
      const FlagText* flag = FindFlag(last_.substr(2, equals - 2));
      if (flag != nullptr) CompleteValue(*flag, last_.substr(0, equals + 1));
    } else if (dashes) {
      for (const FlagText& flag : *flags_) {
        if (before_.given.count(flag.name) > 0) continue;
        Offer(absl::StrCat("--", flag.name), flag.help);
      }
    } else if (command_ != nullptr) {
      CompleteArgument(command_->text.arguments);
    } else if (before_.words.size() <= 1) {
      CompleteCommand();
    }
  }

  void CompleteCommand() {
    const bool first = before_.words.empty();
    if (!first && before_.words[0] != "help") return;
    for (const Command* command : commands_) {
      Offer(command->text.name, command->text.summary);
    }
    if (first) Offer("help", "Show the help of a command");
  }

  // `before` is what of the last word precedes the value.
  void CompleteValue(const FlagText& flag, const std::string& before) {
    if (flag.value_name == "FILE") {
      result_.files = true;
    } else if (flag.name == "model") {
      OfferModels(before);
    } else if (flag.value_name == "LIST") {
      const size_t comma = last_.rfind(',');
      const std::string parts =
          comma == std::string::npos ? before : last_.substr(0, comma + 1);
      for (const std::string& value : flag.offered) Offer(parts + value, "");
    } else if (!flag.offered.empty()) {
      for (const std::string& value : flag.offered) Offer(before + value, "");
    } else if (absl::StrContains(flag.value_name, '|')) {
      for (absl::string_view value : absl::StrSplit(flag.value_name, '|')) {
        Offer(absl::StrCat(before, value), "");
      }
    }
  }

  // `arguments` are those of the usage line: "load NAME PATH | unload NAME",
  // "[FILE [FILE]]" or "ID...". Words in small letters stand for themselves.
  void CompleteArgument(const char* arguments) {
    const size_t index = before_.words.size();
    std::set<std::string> offered;
    for (absl::string_view form : absl::StrSplit(arguments, " | ")) {
      std::vector<std::string> parts;
      for (absl::string_view part : absl::StrSplit(form, ' ')) {
        while (absl::ConsumePrefix(&part, "[")) {
        }
        part = part.substr(0, part.find_first_of("].["));
        parts.emplace_back(part);
      }
      if (index >= parts.size() || !Fits(parts)) continue;
      const std::string& part = parts[index];
      if (part == "FILE") {
        result_.files = true;
      } else if (part == "NAME") {
        OfferModels("");
      } else if (IsLiteral(part) && offered.insert(part).second) {
        Offer(part, "");
      }
    }
  }

  static bool IsLiteral(const std::string& part) {
    return !part.empty() && absl::ascii_islower(part[0]);
  }

  // Whether the words that are there are those of this form.
  bool Fits(const std::vector<std::string>& parts) const {
    for (size_t i = 0; i < before_.words.size(); ++i) {
      if (IsLiteral(parts[i]) && parts[i] != before_.words[i]) return false;
    }
    return true;
  }

  void OfferModels(const std::string& before) {
    for (const std::string& name : ask_models_(before_.connection)) {
      Offer(before + name, "");
    }
  }

  void Offer(const std::string& word, const std::string& help) {
    if (absl::StartsWith(word, last_)) {
      result_.candidates.push_back({word, help});
    }
  }

  const std::vector<std::string>& words_;
  const std::string& last_;
  const std::vector<const Command*>& commands_;
  const std::vector<FlagText>& global_;
  const AskModels& ask_models_;
  const Command* command_ = nullptr;
  const std::vector<FlagText>* flags_ = nullptr;  // of the command, if any
  Before before_;
  Completion result_;
};

}  // namespace

Completion CompleteWords(const std::vector<std::string>& words,
                         const std::vector<const Command*>& commands,
                         const std::vector<FlagText>& global,
                         const AskModels& ask_models) {
  if (words.empty()) return {};
  return Completer(words, commands, global, ask_models).Run();
}

}  // namespace qk::client
