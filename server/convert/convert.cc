#include "server/convert/convert.h"

#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "engine/images.h"
#include "server/convert/convert_arms.h"
#include "server/convert/convert_capture.h"
#include "server/convert/convert_fields.h"
#include "server/convert/convert_generate.h"
#include "server/convert/convert_image.h"

namespace qk {
namespace {

constexpr int kMaxClientTag = 256;

// Converts the prompt to tokens and images.
absl::StatusOr<ConvertedImages> ConvertPromptInput(const pb::Input& input,
                                                   const ModelView& model,
                                                   const Limits& limits) {
  QK_ASSIGN_OR_RETURN(const auto spans, ConvertInput(input, "input", model,
                                                     limits, std::nullopt));
  if (spans.empty()) {
    return BadField("input", "must have at least 1 token, got 0");
  }
  std::vector<int32_t> tokens;
  tokens.reserve(spans.size());
  for (const TokenSpan& span : spans) tokens.push_back(span.id);
  QK_ASSIGN_OR_RETURN(ConvertedImages prompt,
                      ConvertImages(input, std::move(tokens), model));
  const int context = model.config->context_length;
  if (static_cast<int64_t>(prompt.tokens.size()) > context) {
    return BadField(
        "input", absl::StrFormat("%d tokens exceed the model's context of %d",
                                 prompt.tokens.size(), context));
  }
  return prompt;
}

bool SameTower(const VisionConfig& a, const VisionConfig& b) {
  return a.num_layers == b.num_layers &&
         a.attention.num_heads == b.attention.num_heads &&
         a.attention.head_dim == b.attention.head_dim;
}

// Checks the images against the arm's model, which may differ from the
// request's.
absl::Status CheckImagesOfArm(const ConvertedRequest& request,
                              const ModelView& variant, int arm) {
  if (request.spec.images.empty() || variant.model == request.model.model) {
    return absl::OkStatus();
  }
  const std::string field = absl::StrFormat("arms[%d].model", arm);
  const VisionConfig& vision = variant.config->vision;
  const absl::Status status =
      CheckImages(request.spec.images, request.spec.tokens, vision);
  if (!status.ok()) return BadField(field, status.message());
  if (!SameTower(vision, request.model.config->vision)) {
    return BadField(field,
                    "its vision tower has different layers or heads than the "
                    "request's model");
  }
  return absl::OkStatus();
}

absl::Status CheckTowerRules(const ConvertedRequest& request) {
  if (!request.spec.images.empty()) return absl::OkStatus();
  for (size_t i = 0; i < request.spec.arms.size(); ++i) {
    const std::vector<DisruptionRule>& rules = request.spec.arms[i].rules;
    for (size_t j = 0; j < rules.size(); ++j) {
      if (!rules[j].vision) continue;
      return BadField(absl::StrFormat("arms[%d].disruptions[%d].tower", i, j),
                      "the input has no images");
    }
  }
  return absl::OkStatus();
}

absl::Status SetArms(const pb::AnalyzeRequest& request,
                     const ConvertContext& context, ConvertedRequest* out) {
  QK_ASSIGN_OR_RETURN(
      auto arms,
      ConvertArms(request.arms(), out->model,
                  static_cast<int>(out->spec.tokens.size()), context));
  for (ConvertedArm& arm : arms) {
    QK_RETURN_IF_ERROR(
        CheckImagesOfArm(*out, arm.model, out->expanded.arms_size()));
    *out->expanded.add_arms() = std::move(arm.expanded);
    out->spec.arms.push_back(std::move(arm.spec));
  }
  return absl::OkStatus();
}

absl::Status SetGenerate(const pb::GenerateSpec& generate,
                         const ConvertContext& context, ConvertedRequest* out) {
  QK_ASSIGN_OR_RETURN(
      ConvertedGenerate converted,
      ConvertGenerateSpec(generate, out->model,
                          static_cast<int>(out->spec.tokens.size()),
                          context.limits));
  out->spec.generate = std::move(converted.spec);
  *out->expanded.mutable_generate() = std::move(converted.expanded);
  return absl::OkStatus();
}

absl::Status SetOutputs(const pb::AnalyzeRequest& request,
                        const ConvertContext& context, ConvertedRequest* out) {
  const ModelConfig& config = *out->model.config;
  const int tokens = static_cast<int>(out->spec.tokens.size());
  RunSpec& spec = out->spec;
  QK_ASSIGN_OR_RETURN(
      spec.capture, ConvertCapture(request.capture(), config, tokens,
                                   static_cast<int>(spec.images.size()),
                                   spec.generate.has_value(), context.limits));
  *out->expanded.mutable_capture() =
      CaptureToProto(spec.capture, request.capture().raw_sha256());
  QK_ASSIGN_OR_RETURN(spec.statistics,
                      ConvertStatistics(request.statistics(), context.limits));
  out->expanded.mutable_statistics()->set_lambda(spec.statistics.lambda);
  out->expanded.mutable_statistics()->set_top_n(spec.statistics.top_n);
  if (request.has_compare()) {
    QK_ASSIGN_OR_RETURN(spec.baseline,
                        ConvertCompare(request.compare(), spec.arms));
    out->expanded.mutable_compare()->set_baseline(
        spec.arms[*spec.baseline].name);
  }
  if (request.has_logits()) {
    QK_ASSIGN_OR_RETURN(spec.logits, ConvertLogits(request.logits(), config,
                                                   tokens, context.limits));
    pb::LogitsSpec* logits = out->expanded.mutable_logits();
    logits->set_top_n(spec.logits->top_n);
    logits->mutable_positions()->Assign(spec.logits->positions.begin(),
                                        spec.logits->positions.end());
  }
  return absl::OkStatus();
}

// A rule that acts on generated tokens only needs some.
absl::Status CheckDecodeRules(const pb::AnalyzeRequest& request) {
  if (request.has_generate()) return absl::OkStatus();
  for (int i = 0; i < request.arms_size(); ++i) {
    const pb::Arm& arm = request.arms(i);
    for (int j = 0; j < arm.disruptions_size(); ++j) {
      if (arm.disruptions(j).phase() != pb::DECODE) continue;
      return BadField(absl::StrFormat("arms[%d].disruptions[%d].phase", i, j),
                      "DECODE acts on generated tokens, but the request has no "
                      "generate; expected PREFILL, BOTH or a generate");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckEnvelope(const pb::AnalyzeRequest& request) {
  if (request.strict()) QK_RETURN_IF_ERROR(CheckNoUnknownFields(request));
  if (request.client_tag().size() > kMaxClientTag) {
    return BadField("client_tag", absl::StrFormat("got %d bytes, limit %d",
                                                  request.client_tag().size(),
                                                  kMaxClientTag));
  }
  return CheckPriority(request.priority());
}

absl::StatusOr<ConvertedRequest> Convert(const pb::AnalyzeRequest& request,
                                         const pb::Input& input,
                                         const ConvertContext& context) {
  ConvertedRequest out;
  QK_RETURN_IF_ERROR(CheckEnvelope(request));
  QK_ASSIGN_OR_RETURN(out.model, FindModel(request.model(), context));
  QK_ASSIGN_OR_RETURN(ConvertedImages prompt,
                      ConvertPromptInput(input, out.model, context.limits));
  out.spec.tokens = std::move(prompt.tokens);
  out.spec.images = std::move(prompt.images);
  out.expanded.set_model(request.model());
  out.expanded.set_client_tag(request.client_tag());
  out.expanded.set_strict(request.strict());
  out.expanded.set_priority(PriorityOf(request.priority()) == Priority::kBatch
                                ? pb::BATCH
                                : pb::INTERACTIVE);
  out.expanded.mutable_input()->mutable_token_ids()->mutable_ids()->Assign(
      out.spec.tokens.begin(), out.spec.tokens.end());
  for (pb::Image& image : prompt.expanded) {
    *out.expanded.mutable_input()->add_images() = std::move(image);
  }
  QK_RETURN_IF_ERROR(SetArms(request, context, &out));
  QK_RETURN_IF_ERROR(CheckDecodeRules(request));
  QK_RETURN_IF_ERROR(CheckTowerRules(out));
  if (request.has_generate()) {
    QK_RETURN_IF_ERROR(SetGenerate(request.generate(), context, &out));
  }
  QK_RETURN_IF_ERROR(SetOutputs(request, context, &out));
  return out;
}

// The error of AnalyzeManySpec.request, of which the status names a field.
absl::Status InSpec(const absl::Status& status) {
  const auto& request = *pb::AnalyzeRequest::descriptor();
  for (int i = 0; i < request.field_count(); ++i) {
    const std::string& name = request.field(i)->name();
    const absl::Status moved =
        MovePath(status, name, absl::StrCat("spec.request.", name));
    if (moved.message() != status.message()) return moved;
  }
  return status;
}

// A baseline is of what Q, K and V hold before rules act, of whole prompts.
absl::Status CheckBaselineSpec(const pb::AnalyzeRequest& request) {
  const pb::Capture& capture = request.capture();
  const pb::Arm& arm =
      request.arms().empty() ? pb::Arm::default_instance() : request.arms(0);
  const auto is_default = [](int value, int name) {
    return value == 0 || value == name;
  };
  const char* problem = nullptr;
  if (request.arms_size() > 1 || !arm.disruptions().empty() ||
      arm.has_preset() || arm.has_model()) {
    problem = "needs a single arm without rules, of the request's model";
  } else if (request.has_generate()) {
    problem = "cannot be combined with generate";
  } else if (capture.off() || !capture.heads().empty() ||
             !capture.positions().empty() ||
             !is_default(capture.form(), pb::NORM_OVER_TOKENS) ||
             !is_default(capture.stage(), pb::BEFORE)) {
    problem =
        "needs capture of NORM_OVER_TOKENS and BEFORE, of all heads and "
        "positions";
  }
  if (problem == nullptr) return absl::OkStatus();
  return BadField("spec.save_baseline", problem);
}

}  // namespace

absl::Status CheckPriority(pb::Priority priority) {
  if (pb::Priority_IsValid(priority)) return absl::OkStatus();
  return BadField("priority", absl::StrFormat("unknown value %d", priority));
}

Priority PriorityOf(pb::Priority priority) {
  return priority == pb::BATCH ? Priority::kBatch : Priority::kInteractive;
}

absl::StatusOr<ConvertedRequest> ConvertAnalyze(
    const pb::AnalyzeRequest& request, const ConvertContext& context) {
  return Convert(request, request.input(), context);
}

absl::Status CheckManySpec(const pb::AnalyzeManySpec& spec,
                           const ConvertContext& context) {
  const pb::AnalyzeRequest& request = spec.request();
  if (request.has_input()) {
    return BadField("spec.request.input",
                    "must not be set; send each prompt in its own message");
  }
  QK_RETURN_IF_ERROR(InSpec(CheckEnvelope(request)));
  QK_RETURN_IF_ERROR(InSpec(CheckDecodeRules(request)));
  if (request.detach() || request.resumable()) {
    return BadField(
        request.detach() ? "spec.request.detach" : "spec.request.resumable",
        "must not be set in AnalyzeMany");
  }
  if (spec.save_baseline()) QK_RETURN_IF_ERROR(CheckBaselineSpec(request));
  if (request.has_generate() && spec.aggregate()) {
    return BadField("spec.aggregate", "cannot be combined with generate");
  }
  const int form = request.capture().form();
  if (spec.aggregate() && form != pb::CAPTURE_FORM_UNSPECIFIED &&
      form != pb::NORM_OVER_TOKENS) {
    return BadField("spec.aggregate", "needs capture.form NORM_OVER_TOKENS");
  }
  return InSpec(FindModel(request.model(), context).status());
}

absl::StatusOr<ConvertedRequest> ConvertPrompt(const pb::AnalyzeManySpec& spec,
                                               const pb::Input& input,
                                               const ConvertContext& context) {
  auto out = Convert(spec.request(), input, context);
  if (out.ok()) return out;
  const absl::Status moved = MovePath(out.status(), "input", "prompt.input");
  return moved.message() == out.status().message() ? InSpec(moved) : moved;
}

absl::StatusOr<ConvertedRequest> ConvertGenerate(
    const pb::GenerateRequest& request, const ConvertContext& context) {
  if (request.strict()) QK_RETURN_IF_ERROR(CheckNoUnknownFields(request));
  pb::AnalyzeRequest as_analyze;
  as_analyze.set_model(request.model());
  *as_analyze.mutable_generate() = request.generate();
  if (request.has_priority()) as_analyze.set_priority(request.priority());
  as_analyze.mutable_capture()->set_off(true);
  if (request.has_arm()) {
    pb::Arm* arm = as_analyze.add_arms();
    *arm = request.arm();
    if (arm->name().empty()) arm->set_name("arm");
  }
  auto out = Convert(as_analyze, request.input(), context);
  if (out.ok()) return out;
  return MovePath(out.status(), "arms[0]", "arm");
}

}  // namespace qk
