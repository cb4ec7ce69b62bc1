// Rows of cos and sin that the Rope op takes.
#ifndef QKSCOPE_ENGINE_TYPES_ROPE_ROWS_H_
#define QKSCOPE_ENGINE_TYPES_ROPE_ROWS_H_

#include <array>

#include "absl/types/span.h"
#include "engine/types/model_config.h"

namespace qk {

// Where a row stands: the coordinates that RopeConfig::sections turn with. Text
// has one position, three times; an image's row its frame, row and column.
using RopePosition = std::array<int, 3>;

// row (2, rotary / 2) = cos and sin at a position. `frequencies`: of each pair,
// as RopeConfig::FrequenciesFor gives them.
void FillRopeRow(const RopeConfig& rope, absl::Span<const double> frequencies,
                 const RopePosition& position, float* row);

}  // namespace qk

#endif  // QKSCOPE_ENGINE_TYPES_ROPE_ROWS_H_
