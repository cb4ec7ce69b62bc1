// Builds the rows of cos and sin that the Rope op takes.
#ifndef QKSCOPE_ENGINE_TYPES_ROPE_ROWS_H_
#define QKSCOPE_ENGINE_TYPES_ROPE_ROWS_H_

#include <array>

#include "absl/types/span.h"
#include "engine/types/model_config.h"

namespace qk {

// The coordinates of a row, with which RopeConfig::sections rotate. A text row
// has its position three times; an image row has its frame, row and column.
using RopePosition = std::array<int, 3>;

// Fills row (2, rotary / 2) with cos and sin at a position. `frequencies` has
// one per pair, from RopeConfig::FrequenciesFor.
void FillRopeRow(const RopeConfig& rope, absl::Span<const double> frequencies,
                 const RopePosition& position, float* row);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_ROPE_ROWS_H_
