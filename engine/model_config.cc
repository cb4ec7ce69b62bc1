#include "engine/model_config.h"

#include <numbers>

namespace qk {

std::vector<double> RopeConfig::Wavelengths() const {
  std::vector<double> wavelengths;
  wavelengths.reserve(frequencies.size());
  for (double frequency : frequencies) {
    wavelengths.push_back(2 * std::numbers::pi / frequency);
  }
  return wavelengths;
}

}  // namespace qk
