"""The report in headless Chromium: hovering, choosing, the keyboard, no script,
a narrow window, a hostile file. Needs Debian's chromium.

    PICTURES=DIR python test_report_browser.py    also saves pictures there
"""

import os
import pathlib
import re
import tempfile
import unittest

import matplotlib

matplotlib.use("Agg")

import chromium
import numpy as np
import plot_data
from test_report import MARKUP, hostile

from qkscope import report

LEFT, BOTTOM = 44, 18  # the margins of a map, as in report.js

# What a probe has at hand: events in the page, and cells of its maps.
TOOLS = """
const get = id => page.getElementById(id);
const fire = (element, kind, type, options) => element.dispatchEvent(
    new view[kind](type, {bubbles: true, cancelable: true, ...options}));
const choose = (id, value) => {
  get(id).value = value;
  fire(get(id), "Event", get(id).type === "range" ? "input" : "change");
};
const point = (canvas, row, rows, column, columns) => {
  const box = canvas.getBoundingClientRect();
  return {clientX: box.left + LEFT + (column + .5)
              * (canvas.clientWidth - LEFT) / columns,
          clientY: box.top + (row + .5) * (canvas.clientHeight - BOTTOM)
              / rows};
};
const hover = (id, ...cell) => {
  fire(get(id), "MouseEvent", "mousemove", point(get(id), ...cell));
  return get("reading").textContent;
};
const click = (id, ...cell) =>
    fire(get(id), "MouseEvent", "click", point(get(id), ...cell));
const pixels = (id, rows, columns) => {
  const canvas = get(id), box = canvas.getBoundingClientRect(), found = [];
  const image = canvas.getContext("2d").getImageData(
      0, 0, canvas.width, canvas.height);
  const scale = canvas.width / canvas.clientWidth;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = point(canvas, row, rows, column, columns);
      const x = Math.floor((at.clientX - box.left) * scale);
      const y = Math.floor((at.clientY - box.top) * scale);
      found.push([...image.data.slice(4 * (y * image.width + x)).slice(0, 4)]);
    }
  }
  return found;
};
const texts = id => [...get(id).options].map(option => option.textContent);
""".replace("LEFT", str(LEFT)).replace("BOTTOM", str(BOTTOM))


class BrowserCase(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="qkscope_browser_")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    def probe(self, html, script, **options):
        found, console = chromium.probe(self.folder, html, TOOLS + script,
                                        **options)
        self.assertNotIn("error", found)
        self.assertEqual(console, [])
        return found


class ExplorerTest(BrowserCase):

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.analysis, cls.values = plot_data.three_arms()
        cls.html = report.build(cls.analysis.run())

    def colour(self, share):
        return [*matplotlib.colormaps["inferno"](share, bytes=True)]

    def test_it_begins_where_there_is_most_to_see(self):
        found = self.probe(self.html, """return {
            hidden: get("explorer").hidden, arms: texts("arm"),
            tensors: texts("tensor"), heads: texts("head"),
            title: get("layer-title").textContent,
            scale: get("scale").textContent}""")
        self.assertEqual(found["hidden"], False)
        self.assertEqual(found["arms"], ["clean", "top_k:1", "bottom_k:1"])
        self.assertEqual(found["tensors"], ["Q", "K", "V"])
        self.assertEqual(found["heads"], ["0", "1", "2", "3"])
        counts = {layer: len(plot_data.massive(
            self.values["clean", layer, "HOOK_ROT_Q"], plot_data.LAMBDA))
            for layer in plot_data.LAYERS}
        best = max(counts, key=lambda layer: (counts[layer], -layer))
        self.assertEqual(found["title"],
                         f"Q, layer {best}, clean: heads (rows) by dims")
        self.assertIn(f"{counts[best]} in this layer", found["scale"])

    def test_hovering_reads_a_cell(self):
        norms = self.values["top_k:1", 5, "HOOK_ROT_K"].astype(float)
        found = self.probe(self.html, """
            choose("arm", "top_k:1");
            choose("tensor", "1");
            choose("layer", "2");
            const read = [];
            for (let row = 0; row < 2; row++)
              for (let column = 0; column < 8; column++)
                read.push(hover("layer-map", row, 2, column, 8));
            return {read, title: get("layer-title").textContent};""")
        self.assertEqual(found["title"],
                         "K, layer 5, top_k:1: KV heads (rows) by dims")
        ratios = plot_data.ratios(norms)
        for index, text in enumerate(found["read"]):
            head, dim = divmod(index, 8)
            match = re.fullmatch(
                rf"layer 5, KV head {head}, dim {dim}: norm (\S+), (\S+) times "
                r"its head's mean(, massive)?", text)
            self.assertTrue(match, text)
            self.assertAlmostEqual(float(match[1]), norms[head, dim],
                                   delta=norms.max() / 1000)
            self.assertAlmostEqual(float(match[2]), ratios[head, dim],
                                   delta=0.02)
            self.assertEqual(bool(match[3]),
                             ratios[head, dim] > plot_data.LAMBDA)

    def test_cells_have_the_colours_of_their_norms(self):
        norms = self.values["clean", 1, "HOOK_ROT_Q"].astype(float)
        for relative in (True, False):
            found = self.probe(self.html, """
                choose("layer", "1");
                choose("head", "3");
                if (!RELATIVE) get("relative").click();
                return {seen: pixels("layer-map", 4, 8)};""".replace(
                    "RELATIVE", str(relative).lower()))
            shown = plot_data.ratios(norms) if relative else norms
            for index, rgba in enumerate(found["seen"]):
                want = self.colour(shown[divmod(index, 8)] / shown.max())
                np.testing.assert_allclose(rgba, want, atol=4)

    def test_clicking_chooses_a_head_and_a_layer(self):
        found = self.probe(self.html, """
            click("layer-map", 2, 4, 0, 8);
            const head = get("head-title").textContent;
            click("head-map", 2, 3, 0, 8);
            return {head, layer: get("layer-title").textContent,
                    slider: get("layer").value, chosen: get("head").value,
                    cell: hover("head-map", 1, 3, 6, 8)}""")
        self.assertEqual(found["head"], "Q, head 2: layers (rows) by dims")
        self.assertEqual(found["layer"], "Q, layer 5, clean: heads (rows) by "
                         "dims")
        self.assertEqual((found["slider"], found["chosen"]), ("2", "2"))
        self.assertTrue(found["cell"].startswith("layer 1, head 2, dim 6:"))

    def test_the_keyboard(self):
        found = self.probe(self.html, """
            choose("head", "0");
            const map = get("layer-map"), read = [];
            for (const key of ["ArrowDown", "ArrowRight", "ArrowRight",
                               "ArrowUp", "ArrowUp"]) {
              fire(map, "KeyboardEvent", "keydown", {key});
              read.push(get("reading").textContent.split(":")[0]);
            }
            return {read};""")
        self.assertEqual([text.split(", ", 1)[1] for text in found["read"]], [
            "head 1, dim 0", "head 1, dim 1", "head 1, dim 2", "head 0, dim 2",
            "head 0, dim 2"])

    def test_lines(self):
        found = self.probe(self.html, """
            const over = (id, share) => {
              const svg = get(id).querySelector("svg");
              const box = svg.getBoundingClientRect();
              fire(svg, "MouseEvent", "mousemove", {clientX: box.left + 52
                  + share * (box.width - 60), clientY: box.top + 50});
              return get("reading").textContent;
            };
            const layers = over("layer-lines", 0.5);
            choose("statistic", "ratio");
            const ratios = over("layer-lines", 1);
            const kl = over("position-lines", 0.5);
            choose("measure", "logprob");
            return {layers, ratios, kl, logprob: over("position-lines", 1),
                    names: [...page.querySelectorAll(".legend span")].map(
                        e => e.textContent)};""")
        count = {p: len(plot_data.massive(self.values["clean", 1, p],
                                          plot_data.LAMBDA))
                 for p in plot_data.SHAPES}
        self.assertEqual(found["layers"],
                         f"layer 1: Q {count['HOOK_ROT_Q']}; "
                         f"K {count['HOOK_ROT_K']}; V {count['HOOK_V']}")
        ratio = plot_data.ratios(self.values["clean", 5, "HOOK_ROT_Q"]).max()
        self.assertTrue(found["ratios"].startswith(f"layer 5: Q {ratio:.4g}"),
                        found["ratios"])
        self.assertEqual(found["kl"],
                         "position 2: top_k:1 1.5 (flipped); bottom_k:1 0.02")
        self.assertEqual(found["logprob"], "position 4: clean -4; top_k:1 -8; "
                         "bottom_k:1 -5")
        self.assertEqual(found["names"], ["Q", "K", "V", "clean", "top_k:1",
                                          "bottom_k:1"])

    def test_without_script_there_are_pictures_and_tables(self):
        found, _ = chromium.probe(self.folder, self.html, TOOLS + """return {
            hidden: get("explorer").hidden,
            pictures: [...page.images].map(
                i => [i.complete, i.naturalWidth > 300]),
            tables: page.querySelectorAll("table").length}""", scripts=False)
        self.assertEqual(found["hidden"], True)
        self.assertEqual(found["pictures"], [[True, True]] * 4)
        self.assertGreaterEqual(found["tables"], 12)

    def test_nothing_sticks_out_of_a_narrow_window(self):
        for width in (360, 1200):
            found = self.probe(self.html, """return {
                width: page.documentElement.scrollWidth,
                wide: [...page.querySelectorAll("body *")].filter(
                    e => !e.closest(".wide, svg")
                        && e.getBoundingClientRect().right
                        > page.documentElement.clientWidth + 1)
                    .map(e => e.outerHTML.slice(0, 100))}""", width=width)
            self.assertEqual(found, {"width": width, "wide": []})


class HostileTest(BrowserCase):

    def test_texts_stay_texts(self):
        html = report.build(hostile().run())
        found = self.probe(html, """
            choose("arm", texts("arm")[0]);
            hover("layer-map", 0, 2, 4, 8);
            return {hacked, arms: texts("arm"),
                    reading: get("reading").textContent,
                    title: page.title,
                    scripts: page.scripts.length,
                    grey: pixels("layer-map", 2, 8)[4]}""")
        self.assertEqual(found["hacked"], 0)
        self.assertEqual(found["arms"], [MARKUP, "top_k:1"])
        self.assertEqual(found["reading"],
                         "layer 0, head 0, dim 4: norm not finite")
        self.assertEqual(found["title"], MARKUP + ": 3 tokens")
        self.assertEqual(found["scripts"], 2)
        self.assertEqual(found["grey"], [154, 154, 154, 255])

    def test_the_policy_stops_what_escaping_might_miss(self):
        html = report.build(hostile().run()).replace(
            "<h2>", "<img src=x onerror='parent.hacked=1'>"
            "<script>parent.hacked=2</script><h2>")
        found, console = chromium.probe(self.folder, html,
                                        "return {hacked: window.hacked}")
        self.assertEqual(found, {"hacked": 0})
        self.assertTrue(console)

    def test_a_page_without_the_policy_would_be_harmed(self):
        html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "",
                      report.build(hostile().run())).replace(
            "<h2>", "<script>parent.hacked=2</script><h2>")
        found, _ = chromium.probe(self.folder, html,
                                  "return {hacked: window.hacked}")
        self.assertEqual(found, {"hacked": 2})


class PicturesTest(BrowserCase):

    def test_pictures(self):
        from PIL import Image

        out = pathlib.Path(os.environ.get("PICTURES", self.folder))
        for name, analysis in (("report", plot_data.three_arms()[0]),
                               ("hostile", hostile())):
            page = self.folder / f"{name}.html"
            report.write(analysis.run(), page)
            file = out / f"{name}.png"
            self.assertEqual(chromium.screenshot(self.folder, page, file), [])
            with Image.open(file) as picture:
                self.assertEqual(picture.size, (1200, 2600))
                self.assertGreater(len(picture.convert("RGB").getcolors(
                    1 << 22)), 300)


if __name__ == "__main__":
    unittest.main()
