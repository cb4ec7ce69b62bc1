#include "engine/architectures/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace qk {
namespace {

// Returns frequencies[i] / factors[i], in float32.
absl::StatusOr<std::vector<double>> Divide(
    const std::vector<double>& frequencies, absl::Span<const float> factors,
    absl::string_view name) {
  if (factors.size() != frequencies.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": expected ", frequencies.size(), " factors, got ",
                     factors.size()));
  }
  std::vector<double> divided;
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!(factors[i] > 0) || !std::isfinite(factors[i])) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, "[", i, "]: must be finite and > 0, got ", factors[i]));
    }
    divided.push_back(static_cast<float>(frequencies[i]) / factors[i]);
  }
  return divided;
}

// Returns 0 below `low`, 1 above `high`, and a straight line between; float32.
float Ramp(int pair, double low, double high) {
  if (low == high) high += 0.001;
  const float ramp = (static_cast<float>(pair) - static_cast<float>(low)) /
                     static_cast<float>(high - low);
  return std::clamp(ramp, 0.0f, 1.0f);
}

double YarnAttentionFactor(const YarnScaling& s) {
  if (s.attention_factor.has_value()) return *s.attention_factor;
  const auto mscale = [&](double weight) {
    return s.factor <= 1 ? 1.0 : 0.1 * weight * std::log(s.factor) + 1.0;
  };
  if (s.mscale != 0 && s.mscale_all_dim != 0) {
    return mscale(s.mscale) / mscale(s.mscale_all_dim);
  }
  return mscale(1);
}

}  // namespace

RopeConfig PlainRope(double theta, int rotary_dims) {
  RopeConfig rope;
  rope.theta = theta;
  rope.rotary_dims = rotary_dims;
  rope.frequencies = BaseFrequencies(theta, rotary_dims);
  return rope;
}

void ApplyLinear(double factor, RopeConfig* rope) {
  rope->scaling = "linear";
  for (double& f : rope->frequencies) {
    f = static_cast<float>(f) / static_cast<float>(factor);
  }
}

void ApplyDynamic(double factor, int context, RopeConfig* rope) {
  rope->scaling = "dynamic";
  rope->dynamic_factor = factor;
  rope->original_context = context;
}

void ApplyLlama3(const Llama3Scaling& s, RopeConfig* rope) {
  rope->scaling = "llama3";
  const auto context = static_cast<float>(s.original_context);
  const auto factor = static_cast<float>(s.factor);
  const auto low = static_cast<float>(s.low_freq_factor);
  const auto range = static_cast<float>(s.high_freq_factor - s.low_freq_factor);
  const auto shortest =
      static_cast<float>(s.original_context / s.high_freq_factor);
  const auto longest =
      static_cast<float>(s.original_context / s.low_freq_factor);
  for (double& frequency : rope->frequencies) {
    const auto f = static_cast<float>(frequency);
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / f;
    if (wavelength < shortest) continue;
    if (wavelength > longest) {
      frequency = f / factor;
      continue;
    }
    const float smooth = (context / wavelength - low) / range;
    frequency = (1.0f - smooth) * f / factor + smooth * f;
  }
}

void ApplyYarn(const YarnScaling& s, RopeConfig* rope) {
  rope->scaling = "yarn";
  rope->attention_factor = YarnAttentionFactor(s);
  const double dims = rope->rotary_dims;
  // The pair that turns so many times within the original context.
  const auto pair = [&](double turns) {
    return dims *
           std::log(s.original_context / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope->theta));
  };
  double low = pair(s.beta_fast), high = pair(s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  for (int i = 0; i < rope->rotary_dims / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dims);
    const float power = std::pow(static_cast<float>(rope->theta), exponent);
    const float kept = 1.0f / power;
    const float interpolated = 1.0f / (static_cast<float>(s.factor) * power);
    const float share = 1.0f - Ramp(i, low, high);
    rope->frequencies[i] = interpolated * (1.0f - share) + kept * share;
  }
}

absl::Status ApplyLongRope(absl::Span<const float> short_factors,
                           absl::Span<const float> long_factors,
                           int original_context, RopeConfig* rope) {
  const std::vector<double> base = rope->frequencies;
  QK_ASSIGN_OR_RETURN(rope->frequencies,
                      Divide(base, short_factors, "short_factor"));
  QK_ASSIGN_OR_RETURN(rope->long_frequencies,
                      Divide(base, long_factors, "long_factor"));
  rope->scaling = "longrope";
  rope->original_context = original_context;
  return absl::OkStatus();
}

double LongRopeAttentionFactor(double factor, double original_context) {
  if (factor <= 1) return 1;
  return std::sqrt(1 + std::log(factor) / std::log(original_context));
}

absl::Status DivideFrequencies(absl::Span<const float> factors,
                               RopeConfig* rope) {
  QK_ASSIGN_OR_RETURN(rope->frequencies,
                      Divide(rope->frequencies, factors, "rope_freqs.weight"));
  rope->scaling = "llama3";
  return absl::OkStatus();
}

}  // namespace qk
