"""The report of a saved run: what the page holds, for whom, and how large it
may be. test_report_browser.py looks at it in a browser."""

import base64
import contextlib
import hashlib
import html.parser
import io
import json
import math
import os
import pathlib
import re
import stat
import tempfile
import unittest
from unittest import mock

import matplotlib

matplotlib.use("Agg")

import numpy as np
import plot_data

import qkscope
from qkscope import report
from qkscope.__main__ import main
from qkscope.report import maps

MARKUP = "</script><script>parent.hacked=1</script><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(html.parser.HTMLParser):
    """Elements, attributes and texts of a page; `balanced` ends."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.scripts, self.styles = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_data(self, data):
        where = self.open[-1] if self.open else ""
        {"script": self.scripts, "style": self.styles}.get(
            where, self.texts).append(data)

    def attributes(self, tag):
        return [attributes for name, attributes in self.elements
                if name == tag]


def data_of(page):
    (text,) = [s for s in page.scripts if s.startswith("{")]
    return json.loads(text)


def decoded(series, layer):
    """The matrix of a layer as the page's script reads it."""
    codes = np.frombuffer(base64.b64decode(series["data"]), "<u2")
    count = layer["heads"] * layer["dims"]
    part = codes[layer["offset"]:layer["offset"] + count].astype(float)
    part[part == 65535] = np.nan
    return (part / 65534 * layer["scale"]).reshape(layer["heads"],
                                                   layer["dims"])


class ReportTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.analysis, cls.values = plot_data.three_arms()
        cls.text = report.build(cls.analysis.run())
        cls.page = Page(cls.text)

    def test_is_one_page_that_loads_nothing(self):
        page = self.page
        self.assertEqual(page.open, [])
        self.assertTrue(self.text.startswith("<!doctype html>"))
        for tag, attributes in page.elements:
            self.assertNotIn("href", attributes)
            self.assertNotIn("style", attributes)
            self.assertFalse([name for name in attributes
                              if name.startswith("on")])
            self.assertTrue(attributes.get("src", "data:").startswith("data:"),
                            (tag, attributes))
        for style in page.styles:
            self.assertNotIn("url(", style)
            self.assertNotIn("@import", style)

    def test_policy_allows_its_own_script_and_style_only(self):
        (policy,) = [a["content"] for a in self.page.attributes("meta")
                     if a.get("http-equiv") == "Content-Security-Policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        self.assertEqual(rules["default-src"], "'none'")
        self.assertEqual(rules["img-src"], "data:")
        for rule, texts in (("script-src", self.page.scripts[-1:]),
                            ("style-src", self.page.styles)):
            (text,) = texts
            digest = base64.b64encode(
                hashlib.sha256(text.encode()).digest()).decode()
            self.assertEqual(rules[rule], f"'sha256-{digest}'")

    def test_pictures_are_pictures(self):
        images = self.page.attributes("img")
        self.assertEqual(len(images), 4)
        for image in images:
            kind, _, data = image["src"].partition(",")
            self.assertEqual(kind, "data:image/png;base64")
            self.assertEqual(base64.b64decode(data)[:8], b"\x89PNG\r\n\x1a\n")
            self.assertGreater(len(image["alt"]), 20)

    def test_maps_hold_the_norms(self):
        data = data_of(self.page)
        self.assertEqual(data["lambda"], plot_data.LAMBDA)
        found = {(s["arm"], s["label"]): s for s in data["series"]}
        self.assertEqual(len(found), 9)
        for (arm, layer, point), norms in self.values.items():
            label = {"HOOK_ROT_Q": "Q", "HOOK_ROT_K": "K", "HOOK_V": "V"}[point]
            series = found[arm, label]
            (entry,) = [e for e in series["layers"] if e["layer"] == layer]
            np.testing.assert_allclose(decoded(series, entry), norms,
                                       atol=float(norms.max()) / 65534)
            np.testing.assert_allclose(entry["means"],
                                       norms.astype(float).mean(axis=1),
                                       rtol=1e-5)
            self.assertEqual(entry["massive"], len(plot_data.massive(
                norms, plot_data.LAMBDA)))
            self.assertEqual(series["headWord"],
                             "head" if label == "Q" else "KV head")

    def test_comparisons(self):
        by_arm = {c["arm"]: c for c in data_of(self.page)["comparisons"]}
        self.assertEqual(by_arm["top_k:1"]["kl"], [0, .5, 1.5, .25, 2])
        self.assertEqual(by_arm["top_k:1"]["flip"], [0, 1, 1, 0, 1])
        self.assertEqual(by_arm["top_k:1"]["logprob"], [0, -2, -4, -6, -8])
        self.assertEqual(by_arm["bottom_k:1"]["baseline"], "clean")

    def rows(self, text):
        return [re.sub(r"<[^>]*>", "|", row) for row in
                re.findall(r"<tr>(.*?)</tr>", text)]

    def test_tables(self):
        rows = [re.sub(r"\|+", "|", row) for row in self.rows(self.text)]
        self.assertIn("|top_k:1|disrupted|-5|0.85|3/5|clean|", rows)
        self.assertIn("|bottom_k:1|control|-2.75|0.02|0/5|clean|", rows)
        norms = self.values["clean", 5, "HOOK_ROT_Q"]
        ratio = plot_data.ratios(norms)
        head, dim = np.unravel_index(ratio.argmax(), ratio.shape)
        self.assertIn(f"|5|{len(plot_data.massive(norms, 3))}|"
                      f"{ratio.max():.4g}|{head}|{dim}|{norms.max():.4g}|0|",
                      rows)
        self.assertIn("|2|4|1.5|-4|7 flipped|0.02|-2|7|", rows)

    def test_manifest(self):
        text = "".join(self.page.texts)
        self.assertIn('"weights_sha256": "' + "ab" * 32, text)
        self.assertIn("3 1 4 1 5", text)

    def test_the_title(self):
        text = report.build(self.analysis.run(), title="<My> & yours")
        self.assertIn("<title>&lt;My&gt; &amp; yours</title>", text)
        self.assertIn("<h1>&lt;My&gt; &amp; yours</h1>", text)


class HostileTest(unittest.TestCase):
    """What a file holds is text, whatever it looks like."""

    @classmethod
    def setUpClass(cls):
        cls.analysis = hostile()
        cls.text = report.build(cls.analysis.run())
        cls.page = Page(cls.text)

    def test_markup_is_text(self):
        page = self.page
        self.assertEqual(page.open, [])
        self.assertEqual(len(page.scripts), 2)
        self.assertEqual(len(page.attributes("script")), 2)
        self.assertTrue(all("onerror" not in a for a in
                            page.attributes("img")))
        self.assertIn(MARKUP, "".join(page.texts))
        self.assertEqual(data_of(page)["series"][0]["arm"], MARKUP)
        self.assertNotIn("<script>parent", self.text)

    def test_not_finite_is_told(self):
        series = data_of(self.page)["series"][0]
        found = decoded(series, series["layers"][0])
        want = self.analysis.tensors[plot_data.layer_name(
            MARKUP, 0, "HOOK_ROT_Q")]
        np.testing.assert_array_equal(np.isnan(found), ~np.isfinite(want))
        comparison = data_of(self.page)["comparisons"][0]
        self.assertEqual(comparison["kl"][1], None)
        self.assertIn("<td>nan</td>", self.text)


def hostile():
    analysis = plot_data.Analysis((MARKUP, "top_k:1"), model=MARKUP,
                                  tokens=(1, 2, 3))
    analysis.manifest["client_tag"] = MARKUP
    analysis.manifest["kernel_ids"] = [MARKUP, "\u2028<!--", "\x00"]
    analysis.manifest["device"] = "\u202e" + MARKUP
    norms = plot_data.made_up(3, (2, 8))
    norms[0, 4], norms[1, 5] = np.nan, np.inf
    for arm in (MARKUP, "top_k:1"):
        analysis.add(arm, 0, "HOOK_ROT_Q", norms)
        analysis.add(arm, 1, "HOOK_ROT_Q", np.full((2, 8), np.nan))
    analysis.compare("top_k:1", [0, math.nan, 1], [False, False, True],
                     [0, -1, -2], baseline=MARKUP)
    return analysis


class BoundedTest(unittest.TestCase):
    """However much a file holds, the page stays small and says so."""

    def series(self, *shapes, arms=1):
        names = [f"a{i}" for i in range(arms)]
        analysis = plot_data.Analysis(names)
        for name in names:
            for layer, shape in enumerate(shapes):
                analysis.add(name, layer, "HOOK_ROT_Q", plot_data.made_up(
                    layer, shape))
        return maps.collect(analysis.run())

    def test_small_runs_are_shown_whole(self):
        series, notes = self.series((4, 8), (4, 8))
        self.assertEqual(notes, [])
        self.assertEqual((series[0].head_group, series[0].dim_group), (1, 1))

    def test_a_cell_is_the_largest_of_its_group(self):
        values = np.arange(15, dtype=float).reshape(3, 5)
        values[0, 1] = np.nan
        np.testing.assert_array_equal(
            maps.pooled(values, 2, 2),
            [[np.inf, 8, 9], [11, 13, 14]])
        self.assertIs(maps.pooled(values, 1, 1), values)

    def test_wide_and_high_matrices(self):
        series, notes = self.series((600, 3000))
        self.assertEqual((series[0].head_group, series[0].dim_group), (3, 3))
        self.assertEqual(notes, [
            "There is much: a cell of a map is the largest of up to 3 dims.",
            "There is much: a cell of a map is the largest of up to 3 heads."])
        layer = series[0].to_json(5.0)["layers"][0]
        self.assertEqual((layer["heads"], layer["dims"]), (200, 1000))
        self.assertIsNone(layer["means"])
        self.assertEqual(layer["names"][:3], [0, 3, 6])

    def test_many_layers_and_tensors(self):
        with mock.patch.object(maps, "MOST_CELLS", 1000):
            series, notes = self.series(*[(8, 64)] * 10, arms=2)
            self.assertLessEqual(sum(s.cells() for s in series), 1000)
            self.assertEqual(series[0].dim_group, 16)
            self.assertEqual(len(series), 2)
            series, notes = self.series(*[(64, 64)] * 9, arms=3)
            self.assertLessEqual(sum(s.cells() for s in series), 1000)
            self.assertEqual(series[0].layers, [0, 7])
            self.assertEqual(len(series), 1)
        self.assertEqual(notes[:2], [
            "There is much: maps show one layer of 7 only.",
            "There is much: maps show 1 of 3 tensors."])

    def test_many_positions_and_rows(self):
        count = 9000
        analysis = plot_data.Analysis(("clean", "top_k:1"),
                                      tokens=range(count))
        kl = [0.0] * count
        kl[8123] = 5.0
        analysis.compare("top_k:1", kl, [False] * count, [0.0] * count)
        analysis.add("clean", 0, "HOOK_ROT_Q", np.ones((1, 4)))
        text = report.build(analysis.run())
        self.assertLess(len(text), 1_500_000)
        page = Page(text)
        self.assertEqual(len(data_of(page)["comparisons"][0]["kl"]), 4000)
        self.assertIn("lines by position show the first 4000 of 9000", text)
        self.assertIn("The 300 positions of 9000 with the largest KL.", text)
        self.assertIn('<td class="n">8123</td>', text)

    def test_many_arms_layers_and_letters(self):
        names = [f"{i}" + "x" * 5000 for i in range(120)]
        analysis = plot_data.Analysis(names)
        for name in names[1:]:
            analysis.compare(name, [1.0] * 5, [True] * 5, [0.0] * 5,
                             baseline=names[0])
        for layer in range(1200):
            analysis.add(names[0], layer, "HOOK_ROT_Q", np.ones((1, 2)))
        text = report.build(analysis.run())
        self.assertLess(len(text), 1_500_000)
        page = Page(text)
        self.assertIn("There is much: the page shows 100 of 120 arms.",
                      page.texts)
        (series,) = data_of(page)["series"]
        self.assertEqual([e["layer"] for e in series["layers"]],
                         list(range(0, 1200, 3)))
        arms = [c["arm"] for c in data_of(page)["comparisons"]]
        self.assertEqual(len(set(arms)), 99)
        self.assertEqual(arms[0], names[1][:120]
                         + "\N{HORIZONTAL ELLIPSIS} #1")

    def test_many_statistics(self):
        from qkscope.report import tables

        with mock.patch.object(tables, "MOST_ROWS", 4):
            analysis, _ = plot_data.three_arms()
            text = tables.statistics(analysis.run())
        self.assertEqual(text.count("<details>"), 1)
        self.assertIn("8 more tables are left out", text)

    def test_a_long_manifest_is_cut(self):
        from qkscope.report import tables

        analysis = plot_data.Analysis(tokens=range(100000))
        analysis.add("clean", 0, "HOOK_ROT_Q", np.ones((1, 4)))
        text = tables.manifest(analysis.run())
        self.assertLess(len(text), tables.MOST_MANIFEST + 10000)
        self.assertIn(f"The first {tables.MOST_MANIFEST} of", text)


class FormsTest(unittest.TestCase):

    def test_a_run_without_tensors(self):
        page = Page(report.build(plot_data.Analysis().run()))
        self.assertEqual(page.attributes("img"), [])
        self.assertEqual(len(page.scripts), 1)
        self.assertIn("clean", page.texts)

    def test_raw_and_per_token(self):
        raw = np.random.default_rng(1).normal(size=(3, 2, 4)).astype("<f4")
        analysis = plot_data.Analysis(tokens=(1, 2, 3))
        analysis.add("clean", 0, "HOOK_ROT_Q", raw, form="RAW")
        analysis.add("clean", 0, "HOOK_V", np.ones((3, 2)),
                     form="NORM_PER_TOKEN")
        page = Page(report.build(analysis.run()))
        (series,) = data_of(page)["series"]
        want = np.sqrt((raw.astype(float) ** 2).sum(axis=0))
        np.testing.assert_allclose(decoded(series, series["layers"][0]), want,
                                   atol=want.max() / 65534)
        self.assertIn("Not shown: clean: V (captured as norm_per_token).",
                      page.texts)

    def test_shapes_that_do_not_fit_the_form(self):
        analysis = plot_data.Analysis(("clean", "top_k:1"))
        analysis.add("clean", 0, "HOOK_ROT_Q", np.ones(16))
        analysis.add("clean", 0, "HOOK_ROT_K", np.ones((2, 2, 2, 2)),
                     form="RAW")
        analysis.add("clean", 2**31 - 1, "HOOK_V", np.ones((3, 2)))
        analysis.add("clean", -7, "HOOK_V", -np.ones((3, 2)))
        analysis.compare("top_k:1", [1, 2], [True] * 9, [0] * 5)
        page = Page(report.build(analysis.run()))
        self.assertIn("Not shown: clean: Q (shape (16,)); "
                      "clean: K (shape (2, 2, 2, 2)).", page.texts)
        (series,) = data_of(page)["series"]
        self.assertEqual([e["layer"] for e in series["layers"]],
                         [-7, 2**31 - 1])

    def test_no_matplotlib(self):
        run = plot_data.three_arms()[0].run()
        with mock.patch.dict("sys.modules", {"matplotlib": None,
                                             "matplotlib.pyplot": None}):
            with self.assertRaisesRegex(ImportError,
                                        r"pip install 'qkscope\[plot\]'"):
                report.build(run)


class WriteTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="qkscope_report_")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.file = plot_data.three_arms()[0].write(
            self.folder / "a.safetensors")

    def main(self, *words):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["report", *map(str, words)])
        return status, out.getvalue(), err.getvalue()

    def left(self):
        return sorted(os.listdir(self.folder))

    def test_the_command(self):
        self.assertEqual(self.main(self.file),
                         (0, f"{self.folder / 'a.html'}\n", ""))
        self.assertEqual(self.main(self.file, "-o", self.folder / "b.html",
                                   "--title", "T")[0], 0)
        self.assertEqual(self.left(), ["a.html", "a.safetensors", "b.html"])
        self.assertIn("<title>T</title>",
                      (self.folder / "b.html").read_text())

    def test_a_bad_file_or_path_leaves_nothing(self):
        bad = self.folder / "bad.safetensors"
        bad.write_bytes(b"no")
        (self.folder / "folder").mkdir()
        before = self.left()
        for words in ((bad,), (self.folder / "none.safetensors",),
                      (self.file, "-o", self.folder / "no" / "a.html"),
                      (self.file, "-o", self.folder / "folder")):
            status, out, err = self.main(*words)
            self.assertEqual((status, out), (13, ""), words)
            self.assertRegex(err, r"\Aqkscope: [^\n]+\n\Z")
            self.assertEqual(self.left(), before)

    def test_a_page_is_replaced_whole_or_kept(self):
        page = self.folder / "a.html"
        page.write_text("before")
        with mock.patch.object(os, "fsync", side_effect=OSError(28, "full")):
            with self.assertRaisesRegex(qkscope.BadFile, "cannot write.*full"):
                report.write(qkscope.Run.from_safetensors(self.file), page)
        self.assertEqual(page.read_text(), "before")
        self.assertEqual(self.left(), ["a.html", "a.safetensors"])
        report.write(qkscope.Run.from_safetensors(self.file), page)
        self.assertIn("<!doctype html>", page.read_text())

    def test_a_link_stays(self):
        target = self.folder / "target.html"
        target.write_text("before")
        link = self.folder / "link.html"
        link.symlink_to(target)
        self.assertEqual(self.main(self.file, "-o", link)[0], 0)
        self.assertTrue(stat.S_ISLNK(os.lstat(link).st_mode))
        self.assertIn("<!doctype html>", target.read_text())

    def test_the_file_itself_is_not_replaced(self):
        before = self.file.read_bytes()
        status, _, err = self.main(self.file, "-o", self.file)
        self.assertEqual(status, 13)
        self.assertIn("a.safetensors is the analysis itself", err)
        self.assertEqual(self.file.read_bytes(), before)


if __name__ == "__main__":
    unittest.main()
