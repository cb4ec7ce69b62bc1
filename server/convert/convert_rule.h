// Converts a disruption rule from proto to the engine's form and back.
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

// `field`: the rule's path, for errors. `prompt_tokens`: spans must lie within
// [0, prompt_tokens), which is also the default stat_span.
absl::StatusOr<DisruptionRule> ConvertRule(const pb::DisruptionRule& rule,
                                           absl::string_view field,
                                           const ModelConfig& config,
                                           int prompt_tokens,
                                           const Limits& limits);

// Fills in every default.
pb::DisruptionRule RuleToProto(const DisruptionRule& rule);

// Converts a span to a non-empty range [begin, end) within [0, tokens]. An
// unset begin or end is that of `whole`.
absl::StatusOr<Range> ConvertSpan(const pb::Span& span, absl::string_view field,
                                  Range whole, int tokens);

const char* QkvName(Qkv tensor);

}  // namespace qk

#endif  // QKSCOPE_SERVER_CONVERT_CONVERT_RULE_H_
