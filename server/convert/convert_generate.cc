#include "server/convert/convert_generate.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "engine/base/check.h"
#include "server/convert/convert_fields.h"

namespace qk {
namespace {

absl::Status CheckLength(const pb::GenerateSpec& in, const ModelView& model,
                         int prompt_tokens, const Limits& limits) {
  const int wanted = in.max_new_tokens();
  if (wanted < 1) {
    return BadField("generate.max_new_tokens",
                    absl::StrFormat("must be at least 1, got %d", wanted));
  }
  QK_RETURN_IF_ERROR(
      CheckCount("generate.max_new_tokens", wanted, limits.max_new_tokens));
  const int context = model.config->context_length;
  // Prompts are never longer than the context, so this cannot overflow.
  if (wanted > context - prompt_tokens) {
    return BadField("generate.max_new_tokens",
                    absl::StrFormat("%d and %d prompt tokens exceed the "
                                    "model's context of %d",
                                    wanted, prompt_tokens, context));
  }
  return absl::OkStatus();
}

absl::StatusOr<SamplingSpec> ConvertSampling(const pb::Sampling& in) {
  SamplingSpec out;
  if (in.has_temperature()) out.temperature = in.temperature();
  if (in.has_top_p()) out.top_p = in.top_p();
  if (in.has_top_k()) out.top_k = in.top_k();
  if (in.has_seed()) out.seed = in.seed();
  if (!std::isfinite(out.temperature) || out.temperature < 0) {
    return BadField(
        "generate.sampling.temperature",
        absl::StrFormat("must be finite and >= 0, got %g", out.temperature));
  }
  if (!(out.top_p > 0 && out.top_p <= 1)) {
    return BadField("generate.sampling.top_p",
                    absl::StrFormat("must be in (0, 1], got %g", out.top_p));
  }
  if (out.top_k < 0) {
    return BadField("generate.sampling.top_k",
                    absl::StrFormat("must be >= 0, got %d", out.top_k));
  }
  return out;
}

absl::Status ConvertStops(const pb::GenerateSpec& in, const ModelView& model,
                          GenerateSpec* out) {
  QK_RETURN_IF_ERROR(
      CheckCount("generate.stop_strings", in.stop_strings_size(), kMaxStops));
  if (!in.stop_strings().empty() && model.tokenizer == nullptr) {
    const absl::Status status = TakesNoText(model);
    return absl::FailedPreconditionError(absl::StrCat(
        "generate.stop_strings: ", status.message(), "; use stop_token_ids"));
  }
  for (int i = 0; i < in.stop_strings_size(); ++i) {
    const std::string& text = in.stop_strings(i);
    if (!text.empty() && text.size() <= size_t{kMaxStopBytes}) continue;
    return BadField(absl::StrFormat("generate.stop_strings[%d]", i),
                    absl::StrFormat("must be 1 to %d bytes, got %d",
                                    kMaxStopBytes, text.size()));
  }
  out->stop_strings.assign(in.stop_strings().begin(), in.stop_strings().end());
  QK_RETURN_IF_ERROR(CheckCount("generate.stop_token_ids",
                                in.stop_token_ids_size(), kMaxStops));
  for (int i = 0; i < in.stop_token_ids_size(); ++i) {
    const int id = in.stop_token_ids(i);
    if (id >= 0 && id < model.config->vocab_size) continue;
    return absl::OutOfRangeError(
        absl::StrFormat("generate.stop_token_ids[%d]: %d is outside [0, %d)", i,
                        id, model.config->vocab_size));
  }
  out->stop_ids.assign(in.stop_token_ids().begin(), in.stop_token_ids().end());
  if (in.ignore_eos()) return absl::OkStatus();
  const std::vector<int32_t>& eos = model.config->eos_ids;
  out->stop_ids.insert(out->stop_ids.end(), eos.begin(), eos.end());
  if (model.tokenizer != nullptr) {
    const std::vector<int32_t>& own = model.tokenizer->stop_ids();
    out->stop_ids.insert(out->stop_ids.end(), own.begin(), own.end());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ConvertedGenerate> ConvertGenerateSpec(
    const pb::GenerateSpec& in, const ModelView& model, int prompt_tokens,
    const Limits& limits) {
  ConvertedGenerate out;
  QK_RETURN_IF_ERROR(CheckLength(in, model, prompt_tokens, limits));
  out.spec.max_new_tokens = in.max_new_tokens();
  QK_ASSIGN_OR_RETURN(out.spec.sampling, ConvertSampling(in.sampling()));
  QK_RETURN_IF_ERROR(ConvertStops(in, model, &out.spec));
  out.expanded = in;
  out.expanded.set_ignore_eos(in.ignore_eos());
  pb::Sampling* sampling = out.expanded.mutable_sampling();
  sampling->set_temperature(out.spec.sampling.temperature);
  sampling->set_top_p(out.spec.sampling.top_p);
  sampling->set_top_k(out.spec.sampling.top_k);
  sampling->set_seed(out.spec.sampling.seed);
  return out;
}

}  // namespace qk
