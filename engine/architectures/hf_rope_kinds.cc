#include "engine/architectures/hf_rope_kinds.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/architectures/hf_config.h"
#include "engine/architectures/rope_scaling.h"
#include "engine/base/check.h"
#include "engine/formats/excerpt.h"

namespace qk {
namespace {

absl::Status ReadLlama3(const JsonValue& object, const RopeContext& context,
                        RopeConfig* rope) {
  Llama3Scaling s;
  QK_ASSIGN_OR_RETURN(s.factor, ReadPositive(object, "factor"));
  QK_ASSIGN_OR_RETURN(s.low_freq_factor,
                      ReadPositive(object, "low_freq_factor"));
  QK_ASSIGN_OR_RETURN(s.high_freq_factor,
                      ReadPositive(object, "high_freq_factor"));
  if (s.high_freq_factor <= s.low_freq_factor) {
    return object.Error(
        absl::StrCat("high_freq_factor: must be over low_freq_factor ",
                     s.low_freq_factor, ", got ", s.high_freq_factor));
  }
  s.original_context = context.original;
  ApplyLlama3(s, rope);
  return absl::OkStatus();
}

absl::Status ReadYarn(const JsonValue& object, const RopeContext& context,
                      RopeConfig* rope) {
  YarnScaling s;
  s.original_context = context.original;
  // null means that the two contexts decide; the field may not be missing.
  if (IsNull(object, "factor")) {
    s.factor = context.positions / s.original_context;
  } else {
    QK_ASSIGN_OR_RETURN(s.factor, ReadPositive(object, "factor"));
  }
  QK_ASSIGN_OR_RETURN(s.beta_fast, ReadPositiveOr(object, "beta_fast", 32));
  QK_ASSIGN_OR_RETURN(s.beta_slow, ReadPositiveOr(object, "beta_slow", 1));
  QK_ASSIGN_OR_RETURN(s.truncate, object.GetBoolOr("truncate", true));
  if (object.Find("attention_factor").has_value()) {
    QK_ASSIGN_OR_RETURN(s.attention_factor,
                        ReadPositive(object, "attention_factor"));
  }
  QK_ASSIGN_OR_RETURN(s.mscale, object.GetDoubleOr("mscale", 0));
  QK_ASSIGN_OR_RETURN(s.mscale_all_dim,
                      object.GetDoubleOr("mscale_all_dim", 0));
  if (s.mscale < 0 || s.mscale_all_dim < 0) {
    return object.Error("mscale, mscale_all_dim: must be >= 0");
  }
  if (rope->theta <= 1) {
    return object.Error(
        absl::StrCat("rope_theta: must be > 1 for yarn, got ", rope->theta));
  }
  ApplyYarn(s, rope);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> ReadFactors(const JsonValue& object,
                                               const char* key, size_t pairs) {
  QK_ASSIGN_OR_RETURN(const JsonValue array, object.GetArray(key));
  if (array.size() != static_cast<int64_t>(pairs)) {
    return array.Error(
        absl::StrCat("must have ", pairs, " factors, got ", array.size()));
  }
  std::vector<float> factors;
  QK_RETURN_IF_ERROR(array.ForEachElement([&](JsonValue v) -> absl::Status {
    QK_ASSIGN_OR_RETURN(const double factor, v.AsDouble());
    factors.push_back(static_cast<float>(factor));
    if (factors.back() > 0 && std::isfinite(factors.back())) {
      return absl::OkStatus();
    }
    return v.Error(absl::StrCat("must be > 0, got ", factor));
  }));
  return factors;
}

absl::Status ReadLongRope(const JsonValue& object, const RopeContext& context,
                          RopeConfig* rope) {
  const size_t pairs = rope->frequencies.size();
  QK_ASSIGN_OR_RETURN(const std::vector<float> short_factors,
                      ReadFactors(object, "short_factor", pairs));
  QK_ASSIGN_OR_RETURN(const std::vector<float> long_factors,
                      ReadFactors(object, "long_factor", pairs));
  QK_ASSIGN_OR_RETURN(const double factor,
                      ReadPositiveOr(object, "factor",
                                     static_cast<double>(context.positions) /
                                         context.original));
  QK_ASSIGN_OR_RETURN(
      rope->attention_factor,
      ReadPositiveOr(object, "attention_factor",
                     LongRopeAttentionFactor(factor, context.original)));
  return ApplyLongRope(short_factors, long_factors, context.original, rope);
}

}  // namespace

absl::Status ApplyRopeKind(const JsonValue& object, const std::string& kind,
                           const RopeContext& context, RopeConfig* rope) {
  if (kind == "llama3") return ReadLlama3(object, context, rope);
  if (kind == "yarn") return ReadYarn(object, context, rope);
  if (kind == "longrope") return ReadLongRope(object, context, rope);
  if (kind == "linear" || kind == "dynamic") {
    QK_ASSIGN_OR_RETURN(const double factor, ReadPositive(object, "factor"));
    if (kind == "linear") {
      ApplyLinear(factor, rope);
      return absl::OkStatus();
    }
    if (factor < 1 || rope->rotary_dims <= 2) {
      return object.Error(absl::StrCat(
          "factor: must be >= 1, and more than 2 dims must turn, got ", factor,
          " and ", rope->rotary_dims));
    }
    ApplyDynamic(factor, context.positions, rope);
    return absl::OkStatus();
  }
  return Unimplemented(
      object, object.Find("rope_type").has_value() ? "rope_type" : "type",
      absl::StrCat("'", Excerpt(kind),
                   "' is not implemented (implemented: default, linear, "
                   "dynamic, llama3, yarn, longrope)"));
}

}  // namespace qk
