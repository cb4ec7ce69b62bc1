#include "client/qkctl/flags/arm_rule_keys.h"

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/qkctl/flags/text_parse.h"
#include "engine/base/nearest_name.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;
using Rule = v1::DisruptionRule;

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
      {"heads", "same form as layers (all)",
       [](const std::string& text, Rule* rule) {
         return SetInts(text, rule->mutable_heads());
       }},
      EnumKey("tower", Rule::Tower_descriptor(), &Rule::set_tower),
      {"seed", "a whole number, for random_k and presets (0)", SetSeed},
      {"exclude_top", "a whole number, for random_k (K)", SetExcludeTop},
      {"lambda", "a number > 0, for threshold (5)", SetLambda},
  };
}

}  // namespace

absl::Status SetRuleKey(const std::string& name, const std::string& value,
                        Rule* rule) {
  for (const Key& key : Keys()) {
    if (name != key.name) continue;
    absl::Status status = key.set(value, rule);
    if (status.ok()) return status;
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", std::string(status.message())));
  }
  std::vector<std::string> names;
  for (const Key& key : Keys()) names.push_back(key.name);
  names.push_back("model");  // a key of the arm, not of a rule
  const std::string meant = NearestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "'", name, "' is not a key; keys are ", absl::StrJoin(names, ", "),
      meant.empty() ? "" : absl::StrCat("; did you mean ", meant, "?")));
}

std::string RuleKeyHelp() {
  std::string help;
  for (const Key& key : Keys()) {
    absl::StrAppendFormat(&help, "  %-12s %s\n", key.name, key.allowed);
  }
  return help;
}

}  // namespace qk::client
