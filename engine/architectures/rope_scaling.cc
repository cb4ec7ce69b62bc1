#include "engine/architectures/rope_scaling.h"

#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "engine/check.h"

namespace qk {

void SetBaseFrequencies(RopeConfig* rope) {
  rope->frequencies.clear();
  for (int i = 0; i < rope->rotary_dims; i += 2) {
    const float exponent =
        static_cast<float>(i) / static_cast<float>(rope->rotary_dims);
    rope->frequencies.push_back(
        1.0f / std::pow(static_cast<float>(rope->theta), exponent));
  }
}

namespace {

absl::StatusOr<double> PositiveDouble(const JsonValue& object,
                                      absl::string_view key) {
  QK_ASSIGN_OR_RETURN(const double value, object.GetDouble(key));
  if (value <= 0) {
    return object.Error(absl::StrCat(key, ": must be > 0, got ", value));
  }
  return value;
}

// Llama 3.1: low frequencies are divided by `factor`, high ones kept, those
// between blended by where their wavelength lies.
absl::Status ApplyLlama3(const JsonValue& scaling, RopeConfig* rope) {
  QK_ASSIGN_OR_RETURN(const double factor, PositiveDouble(scaling, "factor"));
  QK_ASSIGN_OR_RETURN(const double low,
                      PositiveDouble(scaling, "low_freq_factor"));
  QK_ASSIGN_OR_RETURN(const double high,
                      PositiveDouble(scaling, "high_freq_factor"));
  QK_ASSIGN_OR_RETURN(
      const double context,
      PositiveDouble(scaling, "original_max_position_embeddings"));
  if (high <= low) {
    return scaling.Error(
        absl::StrCat("high_freq_factor: must be over "
                     "low_freq_factor ",
                     low, ", got ", high));
  }
  for (double& frequency : rope->frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < context / high) continue;
    double scaled = frequency / factor;
    if (wavelength <= context / low) {
      const double smooth = (context / wavelength - low) / (high - low);
      scaled = (1 - smooth) * scaled + smooth * frequency;
    }
    frequency = static_cast<float>(scaled);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyRopeScaling(const JsonValue& scaling, RopeConfig* rope) {
  if (!scaling.is_object()) {
    return scaling.Error(
        absl::StrCat("must be an object, got ", scaling.Describe()));
  }
  // Older files say "type".
  const char* key =
      scaling.Find("rope_type").has_value() ? "rope_type" : "type";
  QK_ASSIGN_OR_RETURN(const absl::string_view kind,
                      scaling.GetStringOr(key, "default"));
  if (kind == "default") return absl::OkStatus();
  rope->scaling = std::string(kind);
  if (kind == "llama3") return ApplyLlama3(scaling, rope);
  if (kind == "linear") {
    QK_ASSIGN_OR_RETURN(const double factor, PositiveDouble(scaling, "factor"));
    for (double& f : rope->frequencies) f = static_cast<float>(f / factor);
    return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat(
      "config: ", scaling.Path(), ".", key, ": '", kind,
      "' is not implemented (implemented: default, linear, llama3)"));
}

absl::Status DivideFrequencies(absl::Span<const float> factors,
                               RopeConfig* rope) {
  if (factors.size() != rope->frequencies.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rope_freqs.weight: expected ", rope->frequencies.size(),
                     " factors, got ", factors.size()));
  }
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!(factors[i] > 0) || !std::isfinite(factors[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("rope_freqs.weight[", i,
                       "]: must be finite and > 0, got ", factors[i]));
    }
    rope->frequencies[i] =
        static_cast<float>(rope->frequencies[i] / factors[i]);
  }
  rope->scaling = "llama3";
  return absl::OkStatus();
}

}  // namespace qk
