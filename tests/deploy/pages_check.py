"""Takes pictures of the server's status page with headless Chromium, after real
work, and looks for the numbers in them: each cell of a heat map has the colour
of the count that Analyze returned. Nothing sticks out of a narrow window, and
the colours can be read and told apart, in the light and in the dark.

  pages_check.py --pictures DIR    also saves the pictures of docs/pictures
"""
# row: The status page, seen in Chromium | run | quick | 10

import json
import os
import pathlib
import sys
import unittest

import browser
import programs
from programs import fetch

COLUMNS = 24  # as heat_map.h has them, and the units of its view box
LEFT, TOP, COLUMN = 26, 4, 10
TENSORS = {"hook_rot_q": 0, "hook_rot_k": 1, "hook_v": 2}
PROMPTS = ["The city of Paris is in", "1 2 3 4 5 6 7 8", "Once upon a time",
           "A long story about a king who lived by the sea",
           "def main(): return 0", "aaaaaaaaaaaaaaaaaaaaaaaaa"]
LONG = "a-name-as-long-as-names-may-be-" + "x" * 32
PICTURES = (pathlib.Path(sys.argv.pop()) if sys.argv[1:2] == ["--pictures"]
            else None)


class PagesCheck(programs.RealCase):

    @classmethod
    def setUpClass(cls):
        cls.folder = programs.work_folder(cls)
        cls.server = cls.keep(programs.Server(
            cls.folder, "--model", f"smollm2={os.environ['QKSCOPE_DEMO_MODEL']}",
            "--model", f"{LONG}={programs.TINY_MODEL}",
            "--spool", cls.folder / "spool"))
        # Of smollm2: prompt -> (tensor, layer) -> count.
        cls.prompts = []
        cls.layers = 30
        for prompt in PROMPTS:
            cls.analyze("smollm2", "--prompt", prompt, "--arm", "clean",
                        "--arm", "top_k:1", "--arm", "random_k:1,seed=7")
        cls.analyze("smollm2", "--prompt", PROMPTS[0], "--layers", "5-20")
        cls.analyze(LONG, "--token-ids", "3,1,41,59,26,53,58")
        cls.url = f"http://{cls.server.metrics}/"
        cls.html, cls.style = fetch(cls.url), fetch(cls.url + "style.css")

    @classmethod
    def analyze(cls, model, *flags):
        result = cls.server.qkctl("analyze", "--model", model, "--json", *flags)
        if result.returncode != 0:
            raise AssertionError(result.stderr)
        arms = {}
        for line in result.stdout.splitlines():
            layer = json.loads(line).get("layer")
            if layer is None:
                continue
            tensor = TENSORS[layer["point"].lower()]
            arms.setdefault(layer["arm"], {})[tensor, int(
                layer.get("layer", 0))] = int(
                    layer["statistics"].get("massive_count", 0))
        if model == "smollm2":
            cls.prompts += arms.values()

    def check_cells(self, picture, measured, colours):
        """Every cell of smollm2's maps; returns the colours seen."""
        last = self.prompts[-COLUMNS:]
        seen = set()
        for tensor in range(3):
            x, y, width, _ = measured["heat"][len(measured["heat"]) - 3
                                              + tensor]
            scale = width / measured["view"][-1][2]
            row = 300 // self.layers
            for column in range(COLUMNS):
                counts = last[column - COLUMNS + len(last)] \
                    if column >= COLUMNS - len(last) else {}
                for layer in range(self.layers):
                    count = counts.get((tensor, layer))
                    want = colours["card"] if count is None else colours[
                        f"c{min(8, count.bit_length())}"]
                    at = (round(x + scale * (LEFT + COLUMN * (column + .5))),
                          round(y + scale * (TOP + row * (layer + .5))))
                    self.assertEqual(
                        picture.getpixel(at), browser.rgb(want),
                        f"tensor {tensor}, layer {layer}, column {column}, "
                        f"count {count}, at {at}")
                    seen.add(want)
        return seen

    def picture(self, name, dark):
        measured = browser.measure(self.folder, self.html, self.style)
        self.assertEqual(len(measured["heat"]), 6)
        picture = browser.screenshot(
            self.folder, self.url, self.folder / f"{name}.png",
            height=measured["height"], dark=dark)
        self.assertEqual(picture.size, (1280, measured["height"]))
        colours = browser.themes(self.style)["dark" if dark else "light"]
        self.assertEqual(picture.getpixel((2, 2)), browser.rgb(colours["page"]))
        seen = self.check_cells(picture, measured, colours)
        self.assertGreaterEqual(len(seen), 5, "the cells are too much alike")
        if PICTURES:
            browser.save_small(picture, PICTURES / f"{name}.png", self.style)

    def test_each_cell_has_the_colour_of_its_count(self):
        self.picture("status_page", dark=False)

    def test_in_the_dark_too(self):
        self.picture("status_page_dark", dark=True)

    def test_nothing_sticks_out_of_a_narrow_window(self):
        for width in (400, 700, 1280):
            measured = browser.measure(self.folder, self.html, self.style,
                                       width)
            self.assertEqual(measured["width"], width, measured["wide"])
            self.assertEqual(measured["wide"], [], width)
        if PICTURES:
            browser.save_small(browser.screenshot(
                self.folder, self.url, self.folder / "narrow.png", width=400,
                height=2000), PICTURES / "status_page_narrow.png", self.style)

    def test_the_check_of_overflow_can_fail(self):
        measured = browser.measure(
            self.folder, self.html, self.style + "h1 { min-width: 500px; }", 400)
        self.assertGreater(measured["width"], 400)
        self.assertEqual(len(measured["wide"]), 1)

    def test_colours_can_be_read_and_told_apart(self):
        browser.check_colours(self, self.style)
        consoles = (programs.ROOT / "deploy" / "prometheus" / "consoles"
                    / "qkscope.lib").read_text()
        for theme, colours in browser.themes(self.style).items():
            theirs = browser.themes(consoles)[theme]
            self.assertEqual({name: theirs[name] for name in colours}, colours)


if __name__ == "__main__":
    programs.end_on_sigterm()
    unittest.main(argv=[word for word in sys.argv if word != "--pictures"],
                  verbosity=2)
