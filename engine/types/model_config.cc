#include "engine/types/model_config.h"

#include <cmath>
#include <numbers>

namespace qk {

std::vector<double> BaseFrequencies(double theta, int rotary_dims) {
  std::vector<double> frequencies;
  frequencies.reserve(rotary_dims / 2);
  for (int i = 0; i < rotary_dims; i += 2) {
    const float exponent =
        static_cast<float>(i) / static_cast<float>(rotary_dims);
    frequencies.push_back(1.0f / std::pow(static_cast<float>(theta), exponent));
  }
  return frequencies;
}

std::vector<double> RopeConfig::FrequenciesFor(int positions) const {
  if (original_context == 0 || positions <= original_context) {
    return frequencies;
  }
  if (!long_frequencies.empty()) return long_frequencies;
  if (dynamic_factor == 0) return frequencies;
  // Dynamic NTK: theta grows so that the slowest pair rotates as far over
  // `positions` as it did over original_context / factor; float32, as in
  // transformers.
  const float stretch = static_cast<float>(dynamic_factor) *
                            static_cast<float>(positions) /
                            static_cast<float>(original_context) -
                        static_cast<float>(dynamic_factor - 1.0);
  const float exponent =
      static_cast<float>(rotary_dims) / static_cast<float>(rotary_dims - 2);
  return BaseFrequencies(
      static_cast<float>(theta) * std::pow(stretch, exponent), rotary_dims);
}

bool RopeConfig::MustRecompute(int from, int to) const {
  return !long_frequencies.empty() && from <= original_context &&
         to > original_context;
}

std::vector<double> RopeConfig::Wavelengths(int positions) const {
  std::vector<double> wavelengths;
  wavelengths.reserve(frequencies.size());
  for (double frequency : FrequenciesFor(positions)) {
    wavelengths.push_back(2 * std::numbers::pi / frequency);
  }
  return wavelengths;
}

}  // namespace qk
