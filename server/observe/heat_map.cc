#include "server/observe/heat_map.h"

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/observe/html.h"

namespace qk {
namespace {

constexpr int kMarks = 12;   // height of the row of marks below the cells
constexpr int kFooter = 14;  // height of the caption of the columns

// What the map says in words, for those who do not see it.
std::string Summary(absl::string_view name, const RecentModel& model,
                    Qkv tensor, int layers) {
  int least = -1, most = -1, where = 0;
  for (const RecentPrompt& prompt : model.prompts) {
    for (int layer = 0; layer < layers; ++layer) {
      const int count = prompt.count(tensor, layer);
      if (count < 0) continue;
      least = least < 0 ? count : std::min(least, count);
      if (count > most) {
        most = count;
        where = layer;
      }
    }
  }
  if (most < 0) {
    return absl::StrFormat("%s: no finite norms were captured", name);
  }
  return absl::StrFormat(
      "%s: massive values by layer and prompt, from %d to %d, most in layer %d",
      name, least, most, where);
}

// Where the oldest prompt begins: the newest ends at the right.
int FirstColumn(const RecentModel& model) {
  return kHeatLeft + kHeatColumn * (RecentActivations::kPrompts -
                                    static_cast<int>(model.prompts.size()));
}

// The colour of a cell; nullopt: it is empty.
std::optional<size_t> CellColour(const RecentPrompt& prompt, Qkv tensor,
                                 int layer) {
  const int count = prompt.count(tensor, layer);
  if (count == RecentPrompt::kNotCaptured) return std::nullopt;
  return static_cast<size_t>(count < 0 ? kHeatColours : HeatColour(count));
}

// Cells are lines of width 1 in a system in which they are squares of size 1.
void AppendCells(const RecentModel& model, Qkv tensor, int layers,
                 std::string* out) {
  const std::vector<RecentPrompt>& prompts = model.prompts;
  std::array<std::string, kHeatColours + 1> paths;  // the last: not finite
  for (int layer = 0; layer < layers; ++layer) {
    for (size_t p = 0, end; p < prompts.size(); p = end) {
      const auto colour = CellColour(prompts[p], tensor, layer);
      for (end = p + 1; end < prompts.size() &&
                        CellColour(prompts[end], tensor, layer) == colour;) {
        ++end;
      }
      if (!colour.has_value()) continue;
      absl::StrAppend(&paths[*colour], "M", p, " ", layer, "h", end - p);
    }
  }
  absl::StrAppendFormat(out, "<g transform=\"translate(%d %g) scale(%d %d)\">",
                        FirstColumn(model), kHeatTop + HeatRow(layers) / 2.0,
                        kHeatColumn, HeatRow(layers));
  for (size_t colour = 0; colour < paths.size(); ++colour) {
    if (paths[colour].empty()) continue;
    const std::string name =
        colour == kHeatColours ? "cx" : absl::StrCat("c", colour);
    absl::StrAppend(out, "<path class=\"", name, "\" d=\"", paths[colour],
                    "\"/>");
  }
  out->append("</g>");
}

// A filled triangle marks a disrupted arm, a ring a control.
void AppendMarks(const RecentModel& model, int y, std::string* out) {
  for (size_t p = 0; p < model.prompts.size(); ++p) {
    const int x = FirstColumn(model) + kHeatColumn * static_cast<int>(p);
    switch (model.prompts[p].arm) {
      case ArmKind::kClean:
        break;
      case ArmKind::kDisrupted:
        absl::StrAppend(out, "<path class=\"mark\" d=\"M", x + 5, " ", y + 3,
                        "l3.5 6h-7z\"/>");
        break;
      case ArmKind::kControl:
        absl::StrAppend(out, "<circle class=\"ring\" cx=\"", x + 5, "\" cy=\"",
                        y + 6, "\" r=\"2.8\"/>");
        break;
    }
  }
}

void AppendLayerNumbers(int layers, std::string* out) {
  const int row = HeatRow(layers);
  const int step = layers <= 12 ? 1 : layers <= 40 ? 5 : layers <= 80 ? 10 : 20;
  // A number needs 10 units of height.
  const int apart = std::max(step, (10 + row - 1) / row);
  for (int layer = 0; layer < layers; layer += apart) {
    absl::StrAppendFormat(out,
                          "<text class=\"axis end\" x=\"%d\" y=\"%.1f\">%d"
                          "</text>",
                          kHeatLeft - 4, kHeatTop + row * (layer + 0.5) + 3.5,
                          layer);
  }
}

}  // namespace

int HeatColour(int count) {
  if (count <= 0) return 0;
  return std::min(
      kHeatColours - 1,
      static_cast<int>(std::bit_width(static_cast<unsigned>(count))));
}

std::string HeatColourName(int colour) {
  if (colour <= 1) return absl::StrCat(colour);
  const int least = 1 << (colour - 1);
  if (colour == kHeatColours - 1) return absl::StrCat(least, "+");
  return absl::StrCat(least, "\xE2\x80\x93", 2 * least - 1);
}

int HeatRow(int layers) { return std::clamp(300 / std::max(1, layers), 3, 14); }

std::string HeatMapSvg(absl::string_view name, const RecentModel& model,
                       Qkv tensor, int layers) {
  const int width = kHeatColumn * RecentActivations::kPrompts;
  const int height = HeatRow(layers) * layers;
  const int bottom = kHeatTop + height;
  std::string out = absl::StrFormat(
      "<svg class=\"heat\" viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\" "
      "aria-label=\"%s\">",
      kHeatLeft + width + 4, bottom + kMarks + kFooter, kHeatLeft + width + 4,
      HtmlText(Summary(name, model, tensor, layers)));
  absl::StrAppendFormat(&out,
                        "<rect class=\"none\" x=\"%d\" y=\"%d\" width=\"%d\" "
                        "height=\"%d\"/>",
                        kHeatLeft, kHeatTop, width, height);
  AppendCells(model, tensor, layers, &out);
  AppendMarks(model, bottom, &out);
  AppendLayerNumbers(layers, &out);
  absl::StrAppendFormat(
      &out,
      "<text class=\"axis\" x=\"%d\" y=\"%d\">older</text>"
      "<text class=\"axis end\" x=\"%d\" y=\"%d\">newer</text></svg>\n",
      kHeatLeft, bottom + kMarks + 10, kHeatLeft + width, bottom + kMarks + 10);
  return out;
}

}  // namespace qk
