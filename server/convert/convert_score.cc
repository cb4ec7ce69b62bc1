#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/base/may_park.h"
#include "server/convert/convert.h"
#include "server/convert/convert_arms.h"
#include "server/convert/convert_fields.h"

namespace qk {
namespace {

absl::Status CheckRule(absl::string_view field, const DisruptionRule& rule) {
  if (!rule.vision) return absl::OkStatus();
  return BadField(absl::StrCat(field, ".tower"),
                  "VISION has no meaning in Score, which takes no images");
}

absl::StatusOr<std::vector<int32_t>> Tokens(const pb::Input& input,
                                            const std::string& field,
                                            const ModelView& model,
                                            const Limits& limits,
                                            std::optional<bool> add_special) {
  if (!input.images().empty()) {
    return BadField(absl::StrCat(field, ".images"),
                    "must be empty; Score takes no images");
  }
  QK_ASSIGN_OR_RETURN(const auto spans,
                      ConvertInput(input, field, model, limits, add_special));
  if (spans.empty()) return BadField(field, "must have at least 1 token");
  std::vector<int32_t> ids;
  ids.reserve(spans.size());
  for (const TokenSpan& span : spans) ids.push_back(span.id);
  return ids;
}

struct ConvertedPair {
  RunSpec spec;
  int context = 0;
};

absl::StatusOr<ConvertedPair> ConvertPair(const pb::ScorePair& pair,
                                          const pb::Arm* shared, int index,
                                          const ModelView& model,
                                          const ConvertContext& context) {
  const Limits& limits = context.limits;
  const std::string field = absl::StrFormat("pairs[%d]", index);
  ConvertedPair out;
  QK_ASSIGN_OR_RETURN(out.spec.tokens,
                      Tokens(pair.context(), absl::StrCat(field, ".context"),
                             model, limits, std::nullopt));
  // The continuation follows the context directly, without a BOS in between.
  QK_ASSIGN_OR_RETURN(
      auto continuation,
      Tokens(pair.continuation(), absl::StrCat(field, ".continuation"), model,
             limits, false));
  const size_t total = out.spec.tokens.size() + continuation.size();
  if (total > static_cast<size_t>(model.config->context_length)) {
    return BadField(
        field, absl::StrFormat("%d tokens exceed the model's context of %d",
                               total, model.config->context_length));
  }
  out.context = static_cast<int>(out.spec.tokens.size());
  pb::Arm arm;
  if (pair.has_arm()) {
    arm = pair.arm();
  } else if (shared != nullptr) {
    arm = *shared;
  }
  if (arm.name().empty()) arm.set_name("arm");
  const std::string arm_field =
      pair.has_arm() ? absl::StrCat(field, ".arm") : "arm";
  QK_ASSIGN_OR_RETURN(ConvertedArm converted,
                      ConvertArm(arm, arm_field, model, out.context, context));
  for (size_t i = 0; i < converted.spec.rules.size(); ++i) {
    QK_RETURN_IF_ERROR(
        CheckRule(absl::StrFormat("%s.disruptions[%d]", arm_field, i),
                  converted.spec.rules[i]));
  }
  // A disrupted arm sees what a generation sees; a clean one is a single pass.
  if (converted.spec.rules.empty()) {
    out.spec.tokens.insert(out.spec.tokens.end(), continuation.begin(),
                           continuation.end());
  } else {
    out.spec.continuation = std::move(continuation);
  }
  out.spec.arms.push_back(std::move(converted.spec));
  out.spec.capture.off = true;
  out.spec.score = Range{out.context, static_cast<int>(total)};
  return out;
}

}  // namespace

absl::StatusOr<ConvertedScore> ConvertScore(const pb::ScoreRequest& request,
                                            const ConvertContext& context) {
  ConvertedScore out;
  if (request.strict()) QK_RETURN_IF_ERROR(CheckNoUnknownFields(request));
  QK_RETURN_IF_ERROR(CheckPriority(request.priority()));
  out.priority = PriorityOf(request.priority());
  QK_ASSIGN_OR_RETURN(out.model, FindModel(request.model(), context));
  if (request.pairs().empty()) return BadField("pairs", "must not be empty");
  QK_RETURN_IF_ERROR(CheckCount("pairs", request.pairs_size(),
                                context.limits.max_score_pairs));
  const pb::Arm* shared = request.has_arm() ? &request.arm() : nullptr;
  for (int i = 0; i < request.pairs_size(); ++i) {
    MayPark(kManySteps);
    QK_ASSIGN_OR_RETURN(
        ConvertedPair pair,
        ConvertPair(request.pairs(i), shared, i, out.model, context));
    out.specs.push_back(std::move(pair.spec));
    out.context_tokens.push_back(pair.context);
  }
  return out;
}

}  // namespace qk
