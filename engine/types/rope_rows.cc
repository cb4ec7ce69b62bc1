#include "engine/types/rope_rows.h"

#include <cmath>
#include <cstddef>

namespace qk {

// Angles are float32 products, as in transformers.
void FillRopeRow(const RopeConfig& rope, absl::Span<const double> frequencies,
                 const RopePosition& position, float* row) {
  const size_t half = frequencies.size();
  const auto factor = static_cast<float>(rope.attention_factor);
  size_t section = 0;
  int left = rope.sections.empty() ? static_cast<int>(half) : rope.sections[0];
  for (size_t i = 0; i < half; ++i, --left) {
    while (left == 0) left = rope.sections[++section];
    const double angle = static_cast<float>(position[section]) *
                         static_cast<float>(frequencies[i]);
    row[i] = static_cast<float>(std::cos(angle)) * factor;
    row[half + i] = static_cast<float>(std::sin(angle)) * factor;
  }
}

}  // namespace qk
