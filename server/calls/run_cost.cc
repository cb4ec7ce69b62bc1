#include "server/calls/run_cost.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/model/model.h"
#include "engine/types/rule_shape.h"
#include "server/common/text.h"

namespace qk {
namespace {

// Generous sizes of events, and of their repeated parts, in memory.
constexpr double kEventBytes = 512;
constexpr double kMassiveEntryBytes = 64;
constexpr double kChosenBytes = 64;  // one head or position
constexpr double kTokenTextBytes = 64;
constexpr double kDigestBytes = 200;

double NewTokens(const RunSpec& spec) {
  return spec.generate.has_value() ? spec.generate->max_new_tokens : 0;
}

// How many of the two phases or stages are in the bit set.
double Count(unsigned set) { return set == 3 ? 2 : 1; }

// The number of (arm, layer, point, stage) combinations for so many layers.
double Combinations(const RunSpec& spec, size_t layers) {
  if (spec.capture.off) return 0;
  return static_cast<double>(spec.arms.size()) * layers *
         spec.capture.points.size() * Count(spec.capture.stage);
}

// The number of (arm, layer, point, stage, phase) combinations of the text
// model, and of (arm, image, layer, point, stage) of the vision tower.
double TextPayloads(const RunSpec& spec) {
  return Combinations(spec, spec.capture.layers.size()) *
         Count(spec.capture.phase);
}
double VisionPayloads(const RunSpec& spec) {
  return Combinations(spec, spec.capture.vision_layers.size()) *
         static_cast<double>(spec.images.size());
}

double FrameEventBytes(const RunSpec& spec) {
  const bool per_step = Has(spec.capture.phase, Phase::kDecode) &&
                        spec.capture.form != CaptureForm::kNormOverTokens;
  const double frames =
      TextPayloads(spec) * (1 + (per_step ? NewTokens(spec) : 0)) +
      VisionPayloads(spec);
  const double entries = spec.capture.form == CaptureForm::kNormOverTokens
                             ? spec.statistics.top_n
                             : 0;
  const double positions = static_cast<double>(spec.capture.positions.size());
  return frames * (kEventBytes + entries * kMassiveEntryBytes + 8 * positions);
}

double AppliedBytes(const RunSpec& spec, const DisruptionRule& rule,
                    const ModelConfig& config) {
  double bytes = 0, patches = 0;
  for (const Image& image : spec.images) {
    patches += static_cast<double>(image.patches());
  }
  const double sequences =
      rule.vision ? static_cast<double>(spec.images.size()) : 1;
  const double positions = rule.vision ? patches : rule.positions.size();
  const bool per_token = rule.axis == DisruptionRule::Axis::kPerToken;
  const double steps =
      Has(ChoosingPhases(rule), Phase::kDecode) ? NewTokens(spec) : 0;
  // What was written with the prompt's choice comes at the end of decode, and
  // where LongRoPE lets the prompt choose again.
  const double totals =
      Has(rule.phase, Phase::kDecode) && spec.generate.has_value() ? 2 : 0;
  for (int layer : rule.layers) {
    const AttentionConfig& attention = config.attention(rule.vision, layer);
    const bool counted = rule.select == DisruptionRule::Select::kTopK ||
                         rule.select == DisruptionRule::Select::kBottomK ||
                         rule.select == DisruptionRule::Select::kRandomK;
    const double dims = counted ? rule.k : attention.head_dim;
    const double each = kChosenBytes + 8 * dims;
    const double prefill =
        each * (per_token ? positions : sequences * attention.num_heads);
    const double step = each * (per_token ? 1 : attention.num_heads);
    bytes += (sequences + totals) * kEventBytes + prefill +
             steps * (kEventBytes + step);
  }
  return bytes * static_cast<double>(rule.tensors.size());
}

double EventBytes(const RunSpec& spec) {
  const double arms = static_cast<double>(spec.arms.size());
  const double tokens = static_cast<double>(spec.tokens.size());
  double bytes = FrameEventBytes(spec);
  for (const ArmSpec& arm : spec.arms) {
    for (const DisruptionRule& rule : arm.rules) {
      bytes += AppliedBytes(spec, rule, arm.model->config());
    }
  }
  bytes += arms * NewTokens(spec) * (kEventBytes + 2 * kTokenTextBytes);
  if (spec.baseline.has_value()) bytes += arms * (kEventBytes + 16 * tokens);
  if (spec.logits.has_value()) {
    bytes += arms * static_cast<double>(spec.logits->positions.size()) *
             (kChosenBytes + 8.0 * spec.logits->top_n);
  }
  if (spec.score.has_value()) bytes += kEventBytes + 8 * tokens;
  return bytes;
}

// The size of Finished, which is always a single message.
double SummaryBytes(const RunSpec& spec, const pb::AnalyzeRequest& expanded) {
  return static_cast<double>(expanded.ByteSizeLong()) +
         5.0 * static_cast<double>(spec.tokens.size()) +
         kDigestBytes * (TextPayloads(spec) + VisionPayloads(spec)) +
         static_cast<double>(spec.arms.size()) * (160 + 16 * NewTokens(spec));
}

}  // namespace

absl::StatusOr<RunCost> CostOf(const RunSpec& spec,
                               const pb::AnalyzeRequest& expanded,
                               const Limits& limits) {
  RunCost cost;
  QK_ASSIGN_OR_RETURN(cost.engine, Run::Estimate(spec));
  if (cost.engine.stream_bytes > limits.max_response_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("capture needs ", HumanBytes(cost.engine.stream_bytes),
                     ", limit ", HumanBytes(limits.max_response_bytes),
                     "; reduce layers/heads/positions"));
  }
  const double summary = SummaryBytes(spec, expanded);
  if (summary > kMaxAnswerBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the summary needs ", HumanBytes(static_cast<int64_t>(summary)),
        ", limit ", HumanBytes(kMaxAnswerBytes),
        "; reduce arms/layers/points"));
  }
  const double bytes = static_cast<double>(cost.engine.stream_bytes) +
                       EventBytes(spec) + summary;
  // The bound exceeds any budget, and fits into an int64.
  cost.buffer_bytes = static_cast<int64_t>(std::min(bytes, 1e18));
  return cost;
}

pb::Estimates EstimatesOf(const RunCost& cost, int prompt_tokens,
                          const SchedulerState& state) {
  pb::Estimates out;
  out.set_prompt_tokens(prompt_tokens);
  out.set_streamed_bytes(cost.engine.stream_bytes);
  out.set_peak_extra_bytes(cost.memory_bytes());
  out.set_queue_position(state.waiting_requests);
  out.set_expected_wait_ms(static_cast<double>(state.rows_ahead) *
                           state.seconds_per_row * 1e3);
  return out;
}

}  // namespace qk
