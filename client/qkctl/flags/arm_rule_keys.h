// The KEY=VALUE part of the --arm language; each key sets one field of a rule.
#ifndef QKSCOPE_CLIENT_QKCTL_FLAGS_ARM_RULE_KEYS_H_
#define QKSCOPE_CLIENT_QKCTL_FLAGS_ARM_RULE_KEYS_H_

#include <string>

#include "absl/status/status.h"
#include "qkscope/v1/spec.pb.h"

namespace qk::client {

// INVALID_ARGUMENT names the key and the values that are allowed. The rule's
// `select` must be set before its seed, exclude_top and lambda.
absl::Status SetRuleKey(const std::string& name, const std::string& value,
                        qkscope::v1::DisruptionRule* rule);

// Returns one line per key, with its name and its values.
std::string RuleKeyHelp();

}  // namespace qk::client

#endif  // QKSCOPE_CLIENT_QKCTL_FLAGS_ARM_RULE_KEYS_H_
