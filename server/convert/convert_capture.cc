#include "server/convert/convert_capture.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "server/common/text.h"
#include "server/convert/convert_enums.h"
#include "server/convert/convert_fields.h"

namespace qk {
namespace {

constexpr auto kOutside = absl::StatusCode::kOutOfRange;

absl::Status ConvertPlaces(const pb::Capture& in, const ModelConfig& config,
                           int prompt_tokens, const Limits& limits,
                           CaptureSpec* out) {
  QK_ASSIGN_OR_RETURN(out->layers,
                      ConvertLayers("capture.layers", in.layers(), config,
                                    limits.max_list_entries, kOutside));
  int heads = out->layers.empty() ? 0 : std::numeric_limits<int>::max();
  for (int layer : out->layers) {
    heads = std::min(heads, config.layers[layer].attention.num_heads);
  }
  QK_ASSIGN_OR_RETURN(out->heads,
                      ConvertIndices("capture.heads", in.heads(), heads,
                                     limits.max_list_entries, kOutside));
  QK_ASSIGN_OR_RETURN(
      out->positions,
      ConvertIndices("capture.positions", in.positions(), prompt_tokens,
                     limits.max_list_entries, kOutside));
  return absl::OkStatus();
}

absl::Status ConvertVisionLayers(const pb::Capture& in,
                                 const ModelConfig& config, int images,
                                 const Limits& limits, CaptureSpec* out) {
  constexpr char kField[] = "capture.vision_layers";
  if (in.vision_layers().empty()) return absl::OkStatus();
  if (config.vision.num_layers == 0) {
    return BadField(kField, "the model has no vision tower");
  }
  QK_ASSIGN_OR_RETURN(
      out->vision_layers,
      ConvertIndices(kField, in.vision_layers(), config.vision.num_layers,
                     limits.max_list_entries, kOutside));
  if (images == 0) return BadField(kField, "the input has no images");
  return absl::OkStatus();
}

absl::Status ConvertPoints(const pb::Capture& in, CaptureSpec* out) {
  if (in.points().empty()) return absl::OkStatus();
  out->points.clear();
  for (int i = 0; i < in.points_size(); ++i) {
    const std::string field = absl::StrFormat("capture.points[%d]", i);
    const int number = in.points(i);
    if (number == 0) return BadField(field, "must name a point");
    QK_ASSIGN_OR_RETURN(
        const HookPoint point,
        ConvertEnum(field, number, HookPoint::kQ, kHookPointTable));
    if (std::find(out->points.begin(), out->points.end(), point) !=
        out->points.end()) {
      return BadField(field, absl::StrCat(pb::HookPoint_Name(in.points(i)),
                                          " is given twice"));
    }
    out->points.push_back(point);
  }
  return absl::OkStatus();
}

absl::Status CheckCombinations(const CaptureSpec& spec, bool generates) {
  const bool pattern = std::find(spec.points.begin(), spec.points.end(),
                                 HookPoint::kPattern) != spec.points.end();
  if (pattern && spec.form != CaptureForm::kRaw) {
    return BadField("capture.form", "HOOK_PATTERN needs RAW");
  }
  if (pattern && spec.positions.empty()) {
    return BadField("capture.positions",
                    "HOOK_PATTERN needs chosen query positions");
  }
  if (pattern && !spec.vision_layers.empty()) {
    return BadField("capture.vision_layers",
                    "HOOK_PATTERN is captured in the text only");
  }
  if (!spec.vision_layers.empty() && !Has(spec.phase, Phase::kPrefill)) {
    return BadField("capture.vision_layers",
                    "the tower has no DECODE; set phase to PREFILL or BOTH");
  }
  if (spec.raw_dtype != RawDtype::kF32 && spec.form != CaptureForm::kRaw) {
    return BadField("capture.raw_dtype", "needs form RAW");
  }
  if (Has(spec.phase, Phase::kDecode) && !generates) {
    return BadField("capture.phase", "DECODE and BOTH need generate");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CaptureSpec> ConvertCapture(const pb::Capture& in,
                                           const ModelConfig& config,
                                           int prompt_tokens, int images,
                                           bool generates,
                                           const Limits& limits) {
  CaptureSpec out;
  out.off = in.off();
  QK_RETURN_IF_ERROR(ConvertPlaces(in, config, prompt_tokens, limits, &out));
  QK_RETURN_IF_ERROR(ConvertVisionLayers(in, config, images, limits, &out));
  QK_RETURN_IF_ERROR(ConvertPoints(in, &out));
  QK_ASSIGN_OR_RETURN(
      out.form, ConvertEnum("capture.form", in.form(), out.form, kFormTable));
  QK_ASSIGN_OR_RETURN(out.phase, ConvertEnum("capture.phase", in.phase(),
                                             out.phase, kPhaseTable));
  QK_ASSIGN_OR_RETURN(out.stage, ConvertEnum("capture.stage", in.stage(),
                                             out.stage, kStageTable));
  QK_ASSIGN_OR_RETURN(out.raw_dtype,
                      ConvertEnum("capture.raw_dtype", in.raw_dtype(),
                                  out.raw_dtype, kRawDtypeTable));
  QK_RETURN_IF_ERROR(CheckCombinations(out, generates));
  return out;
}

pb::Capture CaptureToProto(const CaptureSpec& spec, bool raw_sha256) {
  pb::Capture out;
  out.set_off(spec.off);
  out.mutable_layers()->Assign(spec.layers.begin(), spec.layers.end());
  out.mutable_vision_layers()->Assign(spec.vision_layers.begin(),
                                      spec.vision_layers.end());
  out.mutable_heads()->Assign(spec.heads.begin(), spec.heads.end());
  out.mutable_positions()->Assign(spec.positions.begin(), spec.positions.end());
  for (HookPoint point : spec.points) {
    out.add_points(
        static_cast<pb::HookPoint>(EnumNumber(point, kHookPointTable)));
  }
  out.set_form(static_cast<pb::CaptureForm>(EnumNumber(spec.form, kFormTable)));
  out.set_phase(static_cast<pb::Phase>(EnumNumber(spec.phase, kPhaseTable)));
  out.set_stage(static_cast<pb::Stage>(EnumNumber(spec.stage, kStageTable)));
  out.set_raw_dtype(
      static_cast<pb::RawDtype>(EnumNumber(spec.raw_dtype, kRawDtypeTable)));
  out.set_raw_sha256(raw_sha256);
  return out;
}

absl::StatusOr<StatisticsSpec> ConvertStatistics(
    const pb::StatisticsSpec& statistics, const Limits& limits) {
  StatisticsSpec out;
  if (statistics.has_lambda()) out.lambda = statistics.lambda();
  out.top_n = statistics.has_top_n()
                  ? statistics.top_n()
                  : std::min(out.top_n, limits.max_list_entries);
  QK_RETURN_IF_ERROR(CheckPositive("statistics.lambda", out.lambda));
  if (out.top_n < 0) {
    return BadField("statistics.top_n",
                    absl::StrFormat("must be >= 0, got %d", out.top_n));
  }
  QK_RETURN_IF_ERROR(
      CheckCount("statistics.top_n", out.top_n, limits.max_list_entries));
  return out;
}

absl::StatusOr<int> ConvertCompare(const pb::Compare& compare,
                                   const std::vector<ArmSpec>& arms) {
  for (size_t i = 0; i < arms.size(); ++i) {
    const bool wanted = compare.has_baseline()
                            ? arms[i].name == compare.baseline()
                            : arms[i].rules.empty();
    if (wanted) return static_cast<int>(i);
  }
  if (compare.has_baseline()) {
    return BadField(
        "compare.baseline",
        absl::StrCat("no arm is named '", Echo(compare.baseline()), "'"));
  }
  return BadField("compare",
                  "there is no undisrupted arm to compare with; add one or set "
                  "baseline");
}

absl::StatusOr<LogitsSpec> ConvertLogits(const pb::LogitsSpec& logits,
                                         const ModelConfig& config,
                                         int prompt_tokens,
                                         const Limits& limits) {
  LogitsSpec out;
  const int most = std::min(config.vocab_size, limits.max_list_entries);
  out.top_n = logits.has_top_n() ? logits.top_n() : std::min(out.top_n, most);
  if (out.top_n < 1 || out.top_n > most) {
    return BadField("logits.top_n",
                    absl::StrFormat("%d is outside [1, %d]", out.top_n, most));
  }
  QK_ASSIGN_OR_RETURN(
      out.positions,
      ConvertIndices("logits.positions", logits.positions(), prompt_tokens,
                     limits.max_list_entries, kOutside));
  if (out.positions.empty()) out.positions = {prompt_tokens - 1};
  return out;
}

}  // namespace qk
