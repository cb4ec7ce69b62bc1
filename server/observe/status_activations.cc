#include "server/observe/status_activations.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/monotonic.h"
#include "server/observe/heat_map.h"
#include "server/observe/html.h"

namespace qk {
namespace {

// Layers beyond are not drawn, so that the page has a bounded size.
constexpr int kMostLayers = 128;

constexpr struct {
  Qkv tensor;
  const char* name;
  const char* caption;
} kMaps[] = {
    {Qkv::kQ, "Q", "Q after RoPE"},
    {Qkv::kK, "K", "K after RoPE"},
    {Qkv::kV, "V", "V"},
};

void AppendSwatch(absl::string_view style, absl::string_view name,
                  std::string* out) {
  absl::StrAppend(out,
                  "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\">"
                  "<rect class=\"",
                  style, "\" width=\"14\" height=\"14\"/></svg> ", name,
                  "</li>\n");
}

void AppendLegend(std::string* out) {
  out->append("<ul class=\"legend\">\n<li>Massive values:</li>\n");
  for (int colour = 0; colour < kHeatColours; ++colour) {
    AppendSwatch(absl::StrCat("c", colour), HeatColourName(colour), out);
  }
  AppendSwatch("cx", "not finite", out);
  AppendSwatch("none", "not captured", out);
  out->append(
      "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><path "
      "class=\"mark\" d=\"M7 3l4.5 8h-9z\"/></svg> disrupted arm</li>\n"
      "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><circle "
      "class=\"ring\" cx=\"7\" cy=\"7\" r=\"4\"/></svg> control</li>\n"
      "</ul>\n");
}

std::string Number(int count) {
  if (count == RecentPrompt::kNotCaptured) return "\xE2\x80\x93";
  if (count == RecentPrompt::kNotFinite) return "not finite";
  return WithCommas(count);
}

void AppendNumbers(const RecentPrompt& prompt, int layers, std::string* out) {
  out->append(
      "<details>\n<summary>Numbers of the newest prompt</summary>\n"
      "<table class=\"numbers\"><thead><tr><th scope=\"col\">Layer</th>"
      "<th scope=\"col\">Q</th><th scope=\"col\">K</th><th scope=\"col\">V</th>"
      "</tr></thead><tbody>\n");
  for (int layer = 0; layer < layers; ++layer) {
    absl::StrAppend(out, "<tr><th scope=\"row\">", layer, "</th>");
    for (const auto& map : kMaps) {
      absl::StrAppend(out, "<td>", Number(prompt.count(map.tensor, layer)),
                      "</td>");
    }
    out->append("</tr>\n");
  }
  out->append("</tbody></table>\n</details>\n");
}

}  // namespace

void AppendActivations(const RecentModel& model, std::string* out) {
  if (model.prompts.empty()) return;
  int layers = 0;
  for (const RecentPrompt& prompt : model.prompts) {
    layers = std::max(layers, prompt.num_layers());
  }
  layers = std::min(layers, kMostLayers);
  const RecentPrompt& newest = model.prompts.back();
  absl::StrAppend(
      out, "<section class=\"wide\">\n<h2>Activations of ",
      HtmlText(model.model),
      "</h2>\n<p class=\"note\">Massive values by layer (rows) and arm of a ",
      "prompt (columns), before any disruption of the layer. The newest is ",
      ShortDuration(MonotonicNow() - newest.at), " old.</p>\n",
      "<div class=\"maps\">\n");
  for (const auto& map : kMaps) {
    absl::StrAppend(out, "<figure><figcaption>", map.caption, "</figcaption>\n",
                    HeatMapSvg(map.name, model, map.tensor, layers),
                    "</figure>\n");
  }
  out->append("</div>\n");
  AppendLegend(out);
  AppendNumbers(newest, layers, out);
  out->append("</section>\n");
}

}  // namespace qk
