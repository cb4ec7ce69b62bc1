#include "client/qkctl/flags/arm_spec.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "client/qkctl/flags/arm_rule_keys.h"
#include "client/qkctl/flags/text_parse.h"
#include "engine/base/nearest_name.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using Rule = v1::DisruptionRule;

constexpr size_t kMaxNameBytes = 64;

// What a rule, or an arm without one, begins with.
const std::vector<std::string>& Kinds() {
  static const auto& kinds = *new std::vector<std::string>{
      "clean",     "top_k",    "bottom_k", "random_k",
      "threshold", "explicit", "preset"};
  return kinds;
}

absl::Status ParseEntries(const std::string& text, Rule::Explicit* field) {
  for (const std::string& part : SplitText(text, "+")) {
    const std::vector<std::string> pair = absl::StrSplit(part, '/');
    absl::StatusOr<int32_t> head = ParseInt(pair[0]);
    absl::StatusOr<int32_t> dim = ParseInt(pair.size() == 2 ? pair[1] : "");
    if (!head.ok() || !dim.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "explicit: '", part, "' is not HEAD/DIM, as in 0/12+3/40"));
    }
    v1::HeadDim* entry = field->add_entries();
    entry->set_head(*head);
    entry->set_dim(*dim);
  }
  return absl::OkStatus();
}

absl::Status ParseSelect(const std::string& text, Rule* rule) {
  const std::vector<std::string> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  const std::string& kind = parts[0];
  const std::string argument = parts.size() == 2 ? parts[1] : "";
  if (kind == "clean") {
    return absl::InvalidArgumentError("clean takes no argument");
  }
  if (kind == "threshold") {
    rule->mutable_threshold();
    return parts.size() == 2 ? SetRuleKey("lambda", argument, rule)
                             : absl::OkStatus();
  }
  if (kind == "explicit") {
    return ParseEntries(argument, rule->mutable_explicit_());
  }
  if (kind != "top_k" && kind != "bottom_k" && kind != "random_k") {
    const std::string meant = NearestName(kind, Kinds());
    return absl::InvalidArgumentError(absl::StrCat(
        "'", kind,
        "' is not one of clean, top_k:K, bottom_k:K, random_k:K, "
        "threshold:LAMBDA, explicit:HEAD/DIM, preset:NAME",
        meant.empty() ? "" : absl::StrCat("; did you mean ", meant, "?")));
  }
  absl::StatusOr<int32_t> k = ParseInt(argument);
  if (!k.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kind, " needs the number of dims, as in ", kind,
                     ":1; got '", argument, "'"));
  }
  if (kind == "top_k") rule->mutable_top_k()->set_k(*k);
  if (kind == "bottom_k") rule->mutable_bottom_k()->set_k(*k);
  if (kind == "random_k") rule->mutable_random_k()->set_k(*k);
  return absl::OkStatus();
}

// Splits "KEY=VALUE".
absl::StatusOr<std::pair<std::string, std::string>> SplitPair(
    const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not KEY=VALUE"));
  }
  return std::make_pair(text.substr(0, equals), text.substr(equals + 1));
}

// Parses one RULE, `clean` or preset, with its keys.
absl::Status ParseRule(const std::string& text, v1::Arm* arm) {
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  std::set<std::string> given;  // keys of this rule
  Rule* rule = nullptr;
  if (absl::StartsWith(parts[0], "preset:")) {
    arm->mutable_preset()->set_name(parts[0].substr(7));
  } else if (parts[0] != "clean") {
    rule = arm->add_disruptions();
    absl::Status status = ParseSelect(parts[0], rule);
    if (!status.ok()) return status;
    if (rule->threshold().has_lambda()) given.insert("lambda");
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    auto pair = SplitPair(parts[i]);
    if (!pair.ok()) return pair.status();
    const auto& [name, value] = *pair;
    const bool is_first =
        name == "model" ? !arm->has_model() : given.insert(name).second;
    if (!is_first) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", name, "' is given twice"));
    }
    if (name == "model") {
      arm->set_model(value);
    } else if (rule != nullptr) {
      absl::Status status = SetRuleKey(name, value, rule);
      if (!status.ok()) return status;
    } else if (name == "seed" && arm->has_preset()) {
      absl::StatusOr<uint64_t> seed = ParseUnsigned(value);
      if (!seed.ok()) return seed.status();
      arm->mutable_preset()->set_seed(*seed);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("'", name, "' has no meaning for '", parts[0], "'"));
    }
  }
  return absl::OkStatus();
}

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(c) || c == '_' || c == '-';
}

// The offset where the spec begins: after "NAME=", or 0 without a name. No spec
// has only name characters before its first '=', so this is unambiguous.
size_t SpecBegin(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) return 0;
  const bool is_name =
      std::all_of(text.begin(), text.begin() + equals, IsNameCharacter);
  return is_name ? equals + 1 : 0;
}

absl::StatusOr<v1::Arm> ParseNamedArm(const std::string& text) {
  v1::Arm arm;
  const size_t begin = SpecBegin(text);
  const std::string spec = text.substr(begin);
  arm.set_name(begin > 0 ? text.substr(0, begin - 1)
                         : absl::StrReplaceAll(spec, {{"+", "_"}, {";", "_"}}));
  const std::vector<std::string> rules = absl::StrSplit(spec, ';');
  for (const std::string& rule : rules) {
    absl::Status status = ParseRule(rule, &arm);
    if (status.ok()) continue;
    const std::string before = text.substr(0, begin > 0 ? begin - 1 : 0);
    if (std::find(Kinds().begin(), Kinds().end(), before) == Kinds().end()) {
      return status;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        status.message(), "; did you mean ", before, ":", spec, "?"));
  }
  const bool whole_arm = arm.has_preset() || arm.disruptions_size() <
                                                 static_cast<int>(rules.size());
  if (rules.size() > 1 && whole_arm) {
    return absl::InvalidArgumentError(
        "clean and presets cannot be joined with rules");
  }
  if (arm.name().size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("its name is longer than ", kMaxNameBytes,
                     " characters; set a shorter name with NAME=SPEC"));
  }
  return arm;
}

}  // namespace

absl::StatusOr<v1::Arm> ParseArm(const std::string& text) {
  absl::StatusOr<v1::Arm> arm = ParseNamedArm(text);
  if (arm.ok()) return arm;
  return absl::InvalidArgumentError(
      absl::StrCat("arm '", text, "': ", std::string(arm.status().message())));
}

std::string ArmSpecHelp() {
  return absl::StrCat(
      RuleKeyHelp(),
      absl::StrFormat("  %-12s %s\n", "model",
                      "a loaded variant with the same tokenizer"));
}

}  // namespace qk::client
