#include "client/qkctl/flags/request_flags.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/files/arm_kind.h"
#include "client/qkctl/flags/arm_spec.h"
#include "client/qkctl/flags/flag_values.h"
#include "client/qkctl/flags/text_parse.h"

namespace qk::client {
namespace {

namespace v1 = qkscope::v1;

template <typename Enum>
absl::Status SetEnum(const char* flag, const std::optional<std::string>& text,
                     const google::protobuf::EnumDescriptor* type,
                     v1::Capture* capture, void (v1::Capture::*set)(Enum)) {
  if (!text.has_value()) return absl::OkStatus();
  absl::StatusOr<int> value = ParseEnum(type, *text);
  if (!value.ok()) return FlagError(flag, value.status());
  (capture->*set)(static_cast<Enum>(*value));
  return absl::OkStatus();
}

// Returns nullptr if all arms are disrupted.
const v1::Arm* FirstUndisrupted(const v1::AnalyzeRequest& request) {
  for (const v1::Arm& arm : request.arms()) {
    if (IsUndisrupted(arm)) return &arm;
  }
  return nullptr;
}

}  // namespace

// ------------------------------------------------------------------- capture

void CaptureFlags::AddTo(FlagSet* flags) {
  flags->Section("Capture");
  flags->Add("points", "LIST",
             "hook_q, hook_k, hook_v, hook_rot_q, hook_rot_k, hook_z, "
             "hook_pattern (default: hook_rot_q,hook_rot_k,hook_v)",
             &points_);
  flags->Offer(EnumNames(v1::HookPoint_descriptor()));
  flags->Add("layers", "LIST", "0-3,7 (default: all)", &layers_);
  flags->Add("vision-layers", "LIST",
             "layers of the vision tower, captured for each image (default: "
             "none)",
             &vision_layers_);
  flags->Add("heads", "LIST", "query heads (default: all)", &heads_);
  flags->Add("positions", "LIST", "prompt positions (default: all)",
             &positions_);
  flags->Add("form", "FORM", "norm_over_tokens (default), norm_per_token, raw",
             &form_);
  flags->Offer(EnumNames(v1::CaptureForm_descriptor()));
  flags->Add("stage", "STAGE",
             "before (default) or after the disruption, or before_and_after",
             &stage_);
  flags->Offer(EnumNames(v1::Stage_descriptor()));
  flags->Add("phase", "PHASE", "prefill (default), decode, both", &phase_);
  flags->Offer(EnumNames(v1::Phase_descriptor()));
  flags->Add("raw-dtype", "DTYPE", "f32 (default), f16, bf16", &raw_dtype_);
  flags->Offer(EnumNames(v1::RawDtype_descriptor()));
  flags->Add("raw-sha256", "add the SHA-256 of raw values to the manifest",
             &raw_sha256_);
  flags->Add("lambda", "NUMBER",
             "values above this many times their head's mean are massive "
             "(default 5)",
             &lambda_);
  flags->Add("top-n", "N",
             "list this many massive entries per layer and point "
             "(default 8)",
             &top_n_);
}

absl::Status CaptureFlags::BuildLists(v1::Capture* capture) const {
  if (points_.has_value()) {
    capture->clear_points();
    for (const std::string& name : SplitText(*points_, ",")) {
      absl::StatusOr<int> point = ParseEnum(v1::HookPoint_descriptor(), name);
      if (!point.ok()) return FlagError("--points", point.status());
      capture->add_points(static_cast<v1::HookPoint>(*point));
    }
  }
  absl::Status status = SetList("--layers", layers_, capture->mutable_layers());
  if (status.ok()) {
    status = SetList("--vision-layers", vision_layers_,
                     capture->mutable_vision_layers());
  }
  if (status.ok()) {
    status = SetList("--heads", heads_, capture->mutable_heads());
  }
  if (status.ok()) {
    status = SetList("--positions", positions_, capture->mutable_positions());
  }
  return status;
}

absl::Status CaptureFlags::BuildEnums(v1::Capture* capture) const {
  absl::Status status = SetEnum("--form", form_, v1::CaptureForm_descriptor(),
                                capture, &v1::Capture::set_form);
  if (status.ok()) {
    status = SetEnum("--stage", stage_, v1::Stage_descriptor(), capture,
                     &v1::Capture::set_stage);
  }
  if (status.ok()) {
    status = SetEnum("--phase", phase_, v1::Phase_descriptor(), capture,
                     &v1::Capture::set_phase);
  }
  if (status.ok()) {
    status = SetEnum("--raw-dtype", raw_dtype_, v1::RawDtype_descriptor(),
                     capture, &v1::Capture::set_raw_dtype);
  }
  return status;
}

absl::Status CaptureFlags::Build(v1::AnalyzeRequest* request) const {
  v1::Capture* capture = request->mutable_capture();
  absl::Status status = BuildLists(capture);
  if (status.ok()) status = BuildEnums(capture);
  if (!status.ok()) return status;
  if (raw_sha256_) capture->set_raw_sha256(true);
  if (lambda_.has_value()) request->mutable_statistics()->set_lambda(*lambda_);
  if (top_n_.has_value()) request->mutable_statistics()->set_top_n(*top_n_);
  return absl::OkStatus();
}

// ------------------------------------------------------------------ generate

void GenerateFlags::AddTo(FlagSet* flags,
                          const std::string& default_new_tokens) {
  flags->Section("Generation");
  flags->Add("max-new-tokens", "N",
             absl::StrCat("default ", default_new_tokens), &max_new_tokens_);
  flags->Add("temperature", "T", "0, the default, is greedy", &temperature_);
  flags->Add("top-p", "P", "nucleus sampling, in (0, 1]", &top_p_);
  flags->Add("top-k", "K", "sample among the K most likely", &top_k_);
  flags->Add("seed", "N", "seed of the sampling (default 0)", &seed_);
  flags->Add("stop", "TEXT", "stop at this text; may be repeated", &stop_);
  flags->Add("stop-ids", "IDS", "stop at any of these tokens", &stop_ids_);
  flags->Add("ignore-eos", "continue past the model's end-of-sequence tokens",
             &ignore_eos_);
}

bool GenerateFlags::any() const {
  return max_new_tokens_.has_value() || top_k_.has_value() ||
         temperature_.has_value() || top_p_.has_value() || seed_.has_value() ||
         !stop_.empty() || stop_ids_.has_value() || ignore_eos_;
}

absl::StatusOr<v1::GenerateSpec> GenerateFlags::Build() const {
  v1::GenerateSpec spec;
  spec.set_max_new_tokens(max_new_tokens_.value_or(64));
  v1::Sampling* sampling = spec.mutable_sampling();
  if (temperature_.has_value()) sampling->set_temperature(*temperature_);
  if (top_p_.has_value()) sampling->set_top_p(*top_p_);
  if (top_k_.has_value()) sampling->set_top_k(*top_k_);
  if (seed_.has_value()) sampling->set_seed(*seed_);
  for (const std::string& stop : stop_) spec.add_stop_strings(stop);
  absl::Status status =
      SetList("--stop-ids", stop_ids_, spec.mutable_stop_token_ids());
  if (!status.ok()) return status;
  if (ignore_eos_) spec.set_ignore_eos(true);
  return spec;
}

// ------------------------------------------------------------- whole requests

void RequestFlags::AddTo(FlagSet* flags) {
  flags->Section("Request");
  flags->Add("model", "NAME", "default: the server's only model", &model_);
  flags->Add("baseline", "ARM",
             "compare with this arm (default: the first undisrupted arm)",
             &baseline_);
  flags->Add("no-compare",
             "compute no log-probabilities and no KL, which saves the logits",
             &no_compare_);
  flags->Add("logits", "N", "the N most likely next tokens after the prompt",
             &logits_);
  flags->Add("priority", "CLASS",
             prompt_ == Prompt::kOne
                 ? "interactive (default), or batch, which gives way to it"
                 : "interactive, or batch (default), which gives way to it",
             &priority_);
  flags->Offer(EnumNames(v1::Priority_descriptor()));
  flags->Add("tag", "TEXT", "free text, kept in the manifest", &client_tag_);
  if (prompt_ == Prompt::kOne) input_.AddTo(flags);
  arms_.AddTo(flags);
  capture_.AddTo(flags);
  generate_.AddTo(flags, "0, or 64 if another flag of this section is given");
}

absl::Status RequestFlags::ChooseComparison(v1::AnalyzeRequest* request) const {
  if (no_compare_) {
    if (baseline_.has_value()) {
      return Usage("--baseline and --no-compare contradict each other");
    }
    request->clear_compare();
    return absl::OkStatus();
  }
  if (baseline_.has_value()) {
    request->mutable_compare()->set_baseline(*baseline_);
  } else if (!request->compare().has_baseline()) {
    // The baseline is set explicitly, so that a request without an undisrupted
    // arm gets log-probabilities too.
    const v1::Arm* arm = FirstUndisrupted(*request);
    request->mutable_compare()->set_baseline(
        (arm != nullptr ? *arm : request->arms(0)).name());
  }
  return absl::OkStatus();
}

absl::Status RequestFlags::BuildInput(v1::AnalyzeRequest* request) const {
  if (prompt_ == Prompt::kNone) {
    return request->has_input() ? Usage("--arms: `input` must not be set")
                                : absl::OkStatus();
  }
  if (!input_.any() && request->has_input()) {
    return input_.AddImages(request->mutable_input());
  }
  absl::StatusOr<v1::Input> input = input_.Build();
  if (!input.ok()) return input.status();
  *request->mutable_input() = *std::move(input);
  return absl::OkStatus();
}

absl::StatusOr<v1::AnalyzeRequest> RequestFlags::Build() const {
  v1::AnalyzeRequest request;
  absl::Status status = arms_.Build(&request);
  if (!status.ok()) return status;
  if (request.arms().empty()) request.add_arms()->set_name("clean");
  if (model_.has_value()) request.set_model(*model_);
  if (client_tag_.has_value()) request.set_client_tag(*client_tag_);
  if (priority_.has_value()) {
    absl::StatusOr<int> priority =
        ParseEnum(v1::Priority_descriptor(), *priority_);
    if (!priority.ok()) return FlagError("--priority", priority.status());
    request.set_priority(static_cast<v1::Priority>(*priority));
  }
  status = BuildInput(&request);
  if (!status.ok()) return status;
  status = capture_.Build(&request);
  if (!status.ok()) return status;
  if (generate_.any()) {
    absl::StatusOr<v1::GenerateSpec> spec = generate_.Build();
    if (!spec.ok()) return spec.status();
    *request.mutable_generate() = *std::move(spec);
  }
  if (logits_.has_value()) request.mutable_logits()->set_top_n(*logits_);
  status = ChooseComparison(&request);
  if (!status.ok()) return status;
  return request;
}

}  // namespace qk::client
