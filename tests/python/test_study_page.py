"""The report's page in headless Chromium: what it shows, hovering and choosing,
and texts of the results that are no markup. Needs Debian's chromium.

    PICTURES=DIR python test_study_page.py    also saves pictures there
"""

import dataclasses
import os
import pathlib
import tempfile
import unittest

import chromium
import numpy as np
from test_study_store import INFO, STUDY, outcome, unit

from qkscope.study import report
from qkscope.study.records import LayerRow
from qkscope.study.store import Store

TOOLS = """
const get = id => page.getElementById(id);
const fire = (element, kind, type, options) => element.dispatchEvent(
    new view[kind](type, {bubbles: true, cancelable: true, ...options}));
const choose = (id, value) => {
  get(id).value = value;
  fire(get(id), "Event", "change");
};
const over = (element, x, y) => {
  const box = element.getBoundingClientRect();
  fire(element, "MouseEvent", "mousemove", {
      clientX: box.left + x * box.width, clientY: box.top + y * box.height});
  return get("tip").hidden ? null : get("tip").textContent;
};
const texts = selector => [...page.querySelectorAll(selector)].map(
    e => e.textContent);
"""
EVIL = "</script><script>parent.hacked = 1</script><img src=x onerror=" \
    "'parent.hacked = 2'>"
WAVES = {"theta": 1e4, "rotary_dims": 4, "scaling": "none",
         "wavelengths": [6.0, 628.0]}


def layer_rows(layer):
    """Q with one massive entry at (head 1, dim = layer), K with none."""
    norms = np.ones((2, 4))
    norms[1, layer] = 12 - layer
    return [LayerRow("clean", point, layer, count, ratio, 9.0, layer, 1.0, 1.0,
                     False, (values.shape, values.astype("<f2").tobytes()))
            for point, count, ratio, values in [
                ("hook_rot_q", 1, 12.0 - layer, norms),
                ("hook_rot_k", 0, 1.0, np.ones((1, 4)))]]


class PageTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        info = {**INFO, "layers": [{"rope": 0}, {"rope": None}],
                "rope": [WAVES]}
        study = dataclasses.replace(STUDY, title=EVIL)
        units = [unit(i) for i in range(4)]
        units[1] = dataclasses.replace(units[1], item=dataclasses.replace(
            units[1].item, question=EVIL))
        Store.create(cls.folder / "r.sqlite", study, {"m": info}, units,
                     {"qkscope": EVIL})
        with Store.resume(cls.folder / "r.sqlite", study) as store:
            for i, one in enumerate(units[:3]):
                store.add(one, dataclasses.replace(
                    outcome(i, "No." if i == 2 else EVIL + " yes"),
                    layers=layer_rows(0) + layer_rows(1)))
            cls.page = report.page(store)
        if "PICTURES" in os.environ:
            file = cls.folder / "report.html"
            file.write_text(cls.page)
            chromium.screenshot(cls.folder, file, pathlib.Path(
                os.environ["PICTURES"]) / "study.png")

    def probe(self, script, **options):
        found, console = chromium.probe(self.folder, self.page, TOOLS + script,
                                        **options)
        self.assertEqual(console, [])
        if isinstance(found, dict):
            self.assertNotIn("error", found)
        return found

    def test_it_needs_nothing_else(self):
        head, *_ = self.page.split('id="data"')
        self.assertNotRegex(self.page, r"(?i)\b(src|href)=[\"'](?!x )")
        self.assertIn("default-src 'none'", head)
        self.assertNotRegex(head, r"https?://")

    def test_texts_are_no_markup(self):
        got = self.probe("""return {
            title: get("title").textContent, images: page.images.length,
            scripts: page.scripts.length, hacked: parent.hacked || 0};""")
        self.assertEqual(got, {"title": EVIL, "images": 0, "scripts": 2,
                               "hacked": 0})

    def test_scores(self):
        got = self.probe("""
            choose("scores-scorer", "strict");
            const bars = [...page.querySelectorAll("#scores-chart .bar")];
            return {bars: bars.length, tip: over(bars[0], .5, .5),
                    heights: bars.map(b => +b.getAttribute("height")),
                    rows: texts("#scores-table td"),
                    tests: texts("#tests-table td")};""")
        self.assertEqual(got["bars"], 2)
        self.assertEqual(got["tip"], "m, sports\nclean: 66.7 % of 3\n"
                         "95 %: 20.8 % to 93.9 %")
        self.assertGreater(got["heights"][0], 100)
        self.assertLessEqual(got["heights"][1], 1)
        self.assertEqual(got["rows"][:6], ["m", "sports", "clean",
                                           "66.7 % of 3", "20.8 % to 93.9 %",
                                           "as guessing"])
        self.assertEqual(got["tests"][:10], ["m", "sports", "clean", "x", "0",
                                             "2", "0", "1", "0.5000", "1.0000"])

    def test_heat_map(self):
        got = self.probe("""
            const heat = get("heat"), out = {};
            choose("values-point", "hook_rot_q");
            out.massive = over(heat, .125, .75);
            out.read = get("heat-read").textContent;
            out.plain = over(heat, .9, .25);
            out.pixel = [...heat.getContext("2d").getImageData(
                heat.width * .375, heat.height * .75, 1, 1).data];
            choose("values-layer", "1");
            out.next = over(heat, .375, .75);
            fire(heat, "MouseEvent", "click", {
                clientX: heat.getBoundingClientRect().left + 2,
                clientY: heat.getBoundingClientRect().bottom - 2});
            out.head = get("values-head").value;
            const dims = [...page.querySelectorAll("#head-chart .dim")];
            out.dims = dims.map(d => +d.getAttribute("height"));
            out.bar = over(dims[1], .5, .5);
            fire(dims[1], "MouseEvent", "mouseleave", {});
            out.hidden = get("tip").hidden;
            const dots = [...page.querySelectorAll("#layers-chart .dot")];
            out.dots = dots.length;
            out.dot = over(dots[0], .5, .5);
            fire(dots[1], "MouseEvent", "click", {});
            out.chosen = [get("values-point").value, get("values-layer").value];
            return out;""")
        self.assertEqual(got["massive"], "head 1, dim 0: 12.00 x its head's "
                         "mean (massive); RoPE turns it once in 6 tokens")
        self.assertEqual(got["read"], got["massive"])
        self.assertEqual(got["plain"], "head 0, dim 3: 1.00 x its head's mean; "
                         "RoPE turns it once in 628 tokens")
        self.assertLess(sum(got["pixel"][:3]), 200)  # 1 of 10 is dark
        self.assertEqual(got["next"], "head 1, dim 1: 11.00 x its head's mean "
                         "(massive)")
        self.assertEqual(got["head"], "1")
        self.assertEqual([d > 100 for d in got["dims"]],
                         [False, True, False, False])
        self.assertTrue(got["bar"].startswith("head 1, dim 1: 11.00"))
        self.assertTrue(got["hidden"])
        self.assertEqual(got["dots"], 4)
        self.assertIn("massive entries a prompt", got["dot"])
        self.assertEqual(got["chosen"], ["hook_rot_q", "1"])

    def test_answers(self):
        got = self.probe("""
            const out = {all: texts("#answers-table tr").length,
                         evil: texts("#answers-table td")[6]};
            choose("answers-scorer", "strict");
            choose("answers-which", "differ");
            out.differ = texts("#answers-table tr").length;
            out.count = get("answers-count").textContent;
            out.right = page.querySelectorAll("td.right").length;
            return out;""")
        self.assertEqual(got, {"all": 4, "evil": EVIL, "differ": 3,
                               "count": "2 items", "right": 2})

    def test_a_narrow_window(self):
        width = self.probe("return page.documentElement.scrollWidth;",
                           width=380)
        self.assertLessEqual(width, 380)

    def test_without_scripts(self):
        text, _ = chromium.probe(self.folder, self.page,
                                 "return page.body.textContent;",
                                 scripts=False)
        self.assertIn("This page draws its figures", text)


if __name__ == "__main__":
    unittest.main()
