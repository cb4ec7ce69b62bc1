#include "client/arm_spec.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "client/text_parse.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using Rule = v1::DisruptionRule;

constexpr size_t kMaxNameBytes = 64;

template <typename Enum>
absl::Status SetEnum(const google::protobuf::EnumDescriptor* type,
                     const std::string& text, Rule* rule,
                     void (Rule::*set)(Enum)) {
  absl::StatusOr<int> value = ParseEnum(type, text);
  if (!value.ok()) return value.status();
  (rule->*set)(static_cast<Enum>(*value));
  return absl::OkStatus();
}

absl::Status SetInts(const std::string& text,
                     google::protobuf::RepeatedField<int32_t>* field) {
  absl::StatusOr<std::vector<int32_t>> numbers = ParseIntList(text);
  if (!numbers.ok()) return numbers.status();
  field->Assign(numbers->begin(), numbers->end());
  return absl::OkStatus();
}

absl::Status SetSpan(const std::string& text, v1::Span* field) {
  absl::StatusOr<v1::Span> span = ParseSpan(text);
  if (!span.ok()) return span.status();
  *field = *span;
  return absl::OkStatus();
}

absl::Status SetTensors(const std::string& text, Rule* rule) {
  for (const std::string& part : SplitText(text, "+")) {
    const std::string letter = absl::AsciiStrToUpper(part);
    v1::QkvTensor tensor;
    if (letter.size() != 1 ||
        !v1::QkvTensor_Parse(absl::StrCat("QKV_TENSOR_", letter), &tensor)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", part, "' is not one of q, k, v (joined by +, as in q+k)"));
    }
    rule->add_tensors(tensor);
  }
  return absl::OkStatus();
}

absl::Status SetSeed(const std::string& text, Rule* rule) {
  if (!rule->has_random_k()) {
    return absl::InvalidArgumentError("only random_k has a seed");
  }
  absl::StatusOr<uint64_t> seed = ParseUnsigned(text);
  if (!seed.ok()) return seed.status();
  rule->mutable_random_k()->set_seed(*seed);
  return absl::OkStatus();
}

absl::Status SetExcludeTop(const std::string& text, Rule* rule) {
  if (!rule->has_random_k()) {
    return absl::InvalidArgumentError("only random_k can exclude_top");
  }
  absl::StatusOr<int32_t> count = ParseInt(text);
  if (!count.ok()) return count.status();
  rule->mutable_random_k()->set_exclude_top(*count);
  return absl::OkStatus();
}

absl::Status SetLambda(const std::string& text, Rule* rule) {
  if (!rule->has_threshold()) {
    return absl::InvalidArgumentError("only threshold has a lambda");
  }
  absl::StatusOr<double> lambda = ParseNumber(text);
  if (!lambda.ok()) return lambda.status();
  rule->mutable_threshold()->set_lambda(*lambda);
  return absl::OkStatus();
}

absl::Status SetFactor(const std::string& text, Rule* rule) {
  absl::StatusOr<double> factor = ParseNumber(text);
  if (!factor.ok()) return factor.status();
  rule->set_factor(*factor);
  return absl::OkStatus();
}

absl::Status SetReselect(const std::string& text, Rule* rule) {
  absl::StatusOr<bool> reselect = ParseBool(text);
  if (!reselect.ok()) return reselect.status();
  rule->set_reselect(*reselect);
  return absl::OkStatus();
}

struct Key {
  const char* name;
  std::string allowed;
  std::function<absl::Status(const std::string&, Rule*)> set;
};

template <typename Enum>
Key EnumKey(const char* name, const google::protobuf::EnumDescriptor* type,
            void (Rule::*set)(Enum)) {
  return {name, EnumNames(type),
          [type, set](const std::string& text, Rule* rule) {
            return SetEnum(type, text, rule, set);
          }};
}

std::vector<Key> Keys() {
  return {
      {"tensors", "q, k, v joined by + (q+k)", SetTensors},
      EnumKey("point", Rule::Point_descriptor(), &Rule::set_point),
      EnumKey("axis", Rule::Axis_descriptor(), &Rule::set_axis),
      EnumKey("replace", Rule::Replace_descriptor(), &Rule::set_replace),
      {"factor", "a number, for replace=scale (1)", SetFactor},
      EnumKey("kv_grouping", Rule::KvGrouping_descriptor(),
              &Rule::set_kv_grouping),
      EnumKey("phase", v1::Phase_descriptor(), &Rule::set_phase),
      {"reselect", "true, false (false)", SetReselect},
      EnumKey("kv_cache", Rule::KvCache_descriptor(), &Rule::set_kv_cache),
      {"stat_span", "BEGIN:END of positions (all)",
       [](const std::string& text, Rule* rule) {
         return SetSpan(text, rule->mutable_stat_span());
       }},
      {"positions", "BEGIN:END of positions (stat_span)",
       [](const std::string& text, Rule* rule) {
         return SetSpan(text, rule->mutable_positions());
       }},
      {"layers", "numbers and ranges joined by +, 0-3+7 (all)",
       [](const std::string& text, Rule* rule) {
         return SetInts(text, rule->mutable_layers());
       }},
      {"heads", "as layers (all)",
       [](const std::string& text, Rule* rule) {
         return SetInts(text, rule->mutable_heads());
       }},
      {"seed", "a whole number, for random_k and presets (0)", SetSeed},
      {"exclude_top", "a whole number, for random_k (K)", SetExcludeTop},
      {"lambda", "a number > 0, for threshold (5)", SetLambda},
  };
}

std::vector<std::string> KeyNames() {
  std::vector<std::string> names;
  for (const Key& key : Keys()) names.push_back(key.name);
  names.push_back("model");
  return names;
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
  if (kind == "threshold") {
    rule->mutable_threshold();
    return parts.size() == 2 ? SetLambda(argument, rule) : absl::OkStatus();
  }
  if (kind == "explicit") {
    return ParseEntries(argument, rule->mutable_explicit_());
  }
  if (kind != "top_k" && kind != "bottom_k" && kind != "random_k") {
    const std::string meant =
        ClosestName(kind, {"clean", "top_k", "bottom_k", "random_k",
                           "threshold", "explicit", "preset"});
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

absl::Status SetKey(const std::string& name, const std::string& value,
                    Rule* rule) {
  for (const Key& key : Keys()) {
    if (name != key.name) continue;
    absl::Status status = key.set(value, rule);
    if (status.ok()) return status;
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", std::string(status.message())));
  }
  const std::string meant = ClosestName(name, KeyNames());
  return absl::InvalidArgumentError(absl::StrCat(
      "'", name, "' is not a key; keys are ", absl::StrJoin(KeyNames(), ", "),
      meant.empty() ? "" : absl::StrCat("; did you mean ", meant, "?")));
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

// One RULE, `clean` or preset, with its keys.
absl::Status ParseRule(const std::string& text, v1::Arm* arm) {
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  Rule* rule = nullptr;
  if (absl::StartsWith(parts[0], "preset:")) {
    arm->mutable_preset()->set_name(parts[0].substr(7));
  } else if (parts[0] != "clean") {
    rule = arm->add_disruptions();
    absl::Status status = ParseSelect(parts[0], rule);
    if (!status.ok()) return status;
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    auto pair = SplitPair(parts[i]);
    if (!pair.ok()) return pair.status();
    const auto& [name, value] = *pair;
    if (name == "model") {
      arm->set_model(value);
    } else if (rule != nullptr) {
      absl::Status status = SetKey(name, value, rule);
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

// Where the spec begins: behind "NAME=", or 0. No spec has only a name's
// characters before its first '=', so the two cannot be confused.
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
    if (!status.ok()) return status;
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
                     " characters; give it a shorter one: NAME=SPEC"));
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

bool IsUndisrupted(const v1::Arm& arm) {
  return arm.disruptions().empty() && !arm.has_preset();
}

std::string ArmSpecHelp() {
  std::string help;
  for (const Key& key : Keys()) {
    absl::StrAppendFormat(&help, "  %-12s %s\n", key.name, key.allowed);
  }
  absl::StrAppendFormat(&help, "  %-12s %s\n", "model",
                        "a loaded variant with the same tokenizer");
  return help;
}

}  // namespace qk::client
