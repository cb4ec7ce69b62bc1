// Heat maps of massive counts as SVG: a row per layer, a column per prompt.
#ifndef QKSCOPE_SERVER_OBSERVE_HEAT_MAP_H_
#define QKSCOPE_SERVER_OBSERVE_HEAT_MAP_H_

#include <string>

#include "absl/strings/string_view.h"
#include "engine/types/spec.h"
#include "server/observe/recent_activations.h"

namespace qk {

// Counts of 0, 1, 2 to 3, 4 to 7, ... and 128 or more have a colour each.
inline constexpr int kHeatColours = 9;
int HeatColour(int count);
// "0", "1", "2-3", ..., "128+", with an en dash.
std::string HeatColourName(int colour);

// The element `svg`. Its cells are of the classes c0 to c8 and cx (the norms
// are not finite), which the style sheet colours; what was not captured is
// empty. There are columns for RecentActivations::kPrompts prompts, of which
// the newest takes the last: column `c` covers the units [kHeatLeft +
// kHeatColumn * c, kHeatColumn more) of the view box, layer `l` [kHeatTop + row
// * l, row more), where row is HeatRow(layers). At most 10 bytes per cell and
// 4 KiB. `name`, e.g. "Q", is plain text.
std::string HeatMapSvg(absl::string_view name, const RecentModel& model,
                       Qkv tensor, int layers);
inline constexpr int kHeatLeft = 26;
inline constexpr int kHeatTop = 4;
inline constexpr int kHeatColumn = 10;
int HeatRow(int layers);

}  // namespace qk

#endif  // QKSCOPE_SERVER_OBSERVE_HEAT_MAP_H_
