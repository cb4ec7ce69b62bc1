// One disruption rule, to the engine's form and back.
#ifndef QKSCOPE_SERVER_CONVERT_CONVERT_RULE_H_
#define QKSCOPE_SERVER_CONVERT_CONVERT_RULE_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/types/model_config.h"
#include "engine/types/spec.h"
#include "qkscope/v1/spec.pb.h"
#include "server/common/limits.h"
#include "server/common/pb.h"

namespace qk {

// `field`: the rule's path. `prompt_tokens`: the default stat_span's size, and
// what spans are checked against.
absl::StatusOr<DisruptionRule> ConvertRule(const pb::DisruptionRule& rule,
                                           absl::string_view field,
                                           const ModelConfig& config,
                                           int prompt_tokens,
                                           const Limits& limits);

// With every default filled in.
pb::DisruptionRule RuleToProto(const DisruptionRule& rule);

// The values [begin, end) of a span whose default is `whole`.
absl::StatusOr<Range> ConvertSpan(const pb::Span& span, absl::string_view field,
                                  Range whole, int tokens);

const char* QkvName(Qkv tensor);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_RULE_H_
