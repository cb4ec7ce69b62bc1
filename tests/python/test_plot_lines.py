"""What the axes of pictures over layers, dims, positions and tasks hold."""

import math
import re
import unittest
import warnings
import xml.etree.ElementTree as ElementTree

import matplotlib

matplotlib.use("Agg")

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import plot_data
from statsmodels.stats.proportion import proportion_confint
from test_plot_maps import PlotCase, labels

from qkscope import plot

warnings.simplefilter("error")


def lines(axes):
    """label -> (x, y) of each line; those without a label are left out."""
    return {line.get_label(): (np.asarray(line.get_xdata(), float),
                               np.asarray(line.get_ydata(), float))
            for line in axes.lines if not line.get_label().startswith("_")}


def legend(axes):
    return labels(axes.get_legend().get_texts())


class ByLayerTest(PlotCase):

    def test_counts_of_massive_values(self):
        axes = plot.by_layer(self.run_, lambda_=3)
        found = lines(axes)
        self.assertEqual(len(found), 9)
        self.assertEqual(legend(axes)[:3], ["Q, clean", "K, clean",
                                            "V, clean"])
        for arm in self.run_.arms:
            for name, point in (("Q", "HOOK_ROT_Q"), ("K", "HOOK_ROT_K"),
                                ("V", "HOOK_V")):
                x, y = found[f"{name}, {arm}"]
                self.assertEqual(list(x), list(plot_data.LAYERS))
                self.assertEqual(list(y), [
                    len(plot_data.massive(self.values[arm, layer, point], 3))
                    for layer in plot_data.LAYERS])
        self.assertGreater(found["Q, clean"][1].min(), 0)
        self.assertEqual(axes.get_xlabel(), "layer")
        self.assertEqual(axes.get_ylabel(), "massive values")
        self.assertEqual(axes.get_ylim()[0], 0)

    def test_one_arm_and_one_tensor(self):
        axes = plot.by_layer(self.run_, "ratio", arms=["top_k:1"],
                             tensors=["k"], title="t", legend=False)
        (x, y), = lines(axes).values()
        np.testing.assert_allclose(y, [
            plot_data.ratios(self.values["top_k:1", layer, "HOOK_ROT_K"]).max()
            for layer in plot_data.LAYERS], rtol=1e-6)
        self.assertEqual(list(lines(axes)), ["K"])
        self.assertIsNone(axes.get_legend())
        self.assertEqual(axes.get_title(loc="left"), "t")
        axes = plot.by_layer(self.run_["clean"], "max", tensors=["v"])
        np.testing.assert_array_equal(lines(axes)["V"][1], [1, 1, 1])

    def test_the_servers_statistics_are_shown_unless_lambda_is_given(self):
        analysis = plot_data.Analysis()
        norms = plot_data.made_up(0, (2, 8))
        analysis.add("clean", 0, "HOOK_ROT_Q", norms, statistics={
            "massive_count": 77, "ratio": 9.5, "max": 30.0})
        analysis.add("clean", 1, "HOOK_ROT_Q", norms, statistics={
            "massive_count": 0, "ratio": 2.5, "max": 3.0,
            "low_frequency_share": 0.75})
        run = analysis.run()
        self.assertEqual(list(lines(plot.by_layer(run))["Q"][1]), [77, 0])
        self.assertEqual(list(lines(plot.by_layer(run, "ratio"))["Q"][1]),
                         [9.5, 2.5])
        share = lines(plot.by_layer(run, "low_frequency_share"))["Q"][1]
        np.testing.assert_array_equal(share, [np.nan, 0.75])
        self.assertEqual(list(lines(plot.by_layer(run, lambda_=3))["Q"][1]),
                         [len(plot_data.massive(norms, 3))] * 2)

    def test_not_finite(self):
        analysis = plot_data.Analysis()
        analysis.add("clean", 0, "HOOK_ROT_Q", np.full((2, 4), np.nan))
        analysis.add("clean", 1, "HOOK_ROT_Q", [[1, np.inf, 8, 1, 1, 1]])
        run = analysis.run()
        self.assertEqual(list(lines(plot.by_layer(run, "non_finite_count"))[
            "Q"][1]), [8, 1])
        np.testing.assert_array_equal(
            lines(plot.by_layer(run, "max"))["Q"][1], [np.nan, 8])
        np.testing.assert_allclose(
            lines(plot.by_layer(run, "ratio"))["Q"][1], [np.nan, 8 * 5 / 12])
        np.testing.assert_array_equal(
            lines(plot.by_layer(run, lambda_=3))["Q"][1], [0, 1])

    def test_what_cannot_be_drawn(self):
        self.fails("y is 'x'", plot.by_layer, self.run_, "x")
        self.fails("no arm 'z'", plot.by_layer, self.run_, arms=["z"])
        self.fails("has no hook_q", plot.by_layer, self.run_,
                   tensors=["q_pre"])
        self.fails("needs a run or one of its arms", plot.by_layer,
                   np.ones((2, 2)))
        self.fails("no captured values", plot.by_layer,
                   plot_data.Analysis().run())


class RatioDistributionTest(PlotCase):

    def ratios(self, point, layers=plot_data.LAYERS, arm="clean"):
        return np.sort(np.concatenate([
            plot_data.ratios(self.values[arm, layer, point]).ravel()
            for layer in layers]))

    def test_share_above(self):
        axes = plot.ratio_distribution(self.run_, lambda_=3)
        found = lines(axes)
        self.assertEqual(legend(axes), ["Q", "K", "V", "massive: over 3"])
        for name, point in (("Q", "HOOK_ROT_Q"), ("K", "HOOK_ROT_K"),
                            ("V", "HOOK_V")):
            want = self.ratios(point)
            x, y = found[name]
            for at, share in zip(x, y):
                self.assertAlmostEqual(
                    share, sum(v >= at * (1 - 1e-12) for v in want)
                    / len(want), places=12)
            self.assertAlmostEqual(x[-1], want[-1], places=6)
            self.assertAlmostEqual(y[0], 1)
        self.assertEqual(found["massive: over 3"][0].tolist(), [3, 3])
        self.assertEqual((axes.get_xscale(), axes.get_yscale()),
                         ("log", "log"))
        self.assertEqual(axes.get_xlabel(), "norm / mean of its head")
        self.assertEqual(axes.get_ylabel(), "share of entries above")

    def test_histogram_of_one_layer_of_two_arms(self):
        axes = plot.ratio_distribution(self.run_, 5, kind="hist", bins=10,
                                       tensors=["q"],
                                       arms=["clean", "top_k:1"])
        top = max(self.ratios("HOOK_ROT_Q", [5], arm)[-1]
                  for arm in ("clean", "top_k:1"))
        self.assertEqual(len(axes.patches), 2)
        for patch, arm in zip(axes.patches, ("clean", "top_k:1")):
            counts, edges = np.histogram(
                self.ratios("HOOK_ROT_Q", [5], arm), 10, (0, top))
            corners = patch.get_xy()
            np.testing.assert_allclose(np.unique(corners[:, 0]), edges,
                                       rtol=1e-6)
            self.assertEqual(sorted(set(corners[:, 1])),
                             sorted({0, *map(float, counts)}))
            self.assertEqual(patch.get_label(), f"Q, {arm}")
        self.assertEqual(axes.get_ylabel(), "entries")

    def test_not_finite_is_left_out_and_counted(self):
        analysis = plot_data.Analysis()
        analysis.add("clean", 0, "HOOK_ROT_Q", [[1, 3, np.nan, np.inf]])
        axes = plot.ratio_distribution(analysis.run())
        x, y = lines(axes)["Q (2 not finite)"]
        np.testing.assert_allclose(x, [0.5, 1.5])
        np.testing.assert_allclose(y, [1, 0.5])
        analysis.add("clean", 0, "HOOK_ROT_Q", [[np.nan, np.nan]])
        axes = plot.ratio_distribution(analysis.run())
        axes.figure.canvas.draw()

    def test_what_cannot_be_drawn(self):
        self.fails("kind", plot.ratio_distribution, self.run_, kind="pie")
        self.fails("not 3", plot.ratio_distribution, self.run_, 3)
        self.fails("has no hook_rot_q", plot.ratio_distribution,
                   plot_data.Analysis().run())


class RopeTest(PlotCase):

    WAVELENGTHS = [6.28, 60.0, 600.0, 6000.0]

    @classmethod
    def setUpClass(cls):
        analysis = plot_data.Analysis()
        cls.norms = {}
        for seed, point in enumerate(("HOOK_Q", "HOOK_ROT_Q", "HOOK_K",
                                      "HOOK_ROT_K")):
            cls.norms[point] = analysis.add(
                "clean", 4, point, plot_data.made_up(seed, (3, 8)),
                statistics={"massive_count": 1, "top": [
                    {"head": 0, "dim": 6, "norm": 30, "ratio": 5,
                     "wavelength": 600.0}],
                    "largest": {"dim": 3, "wavelength": 6000.0}}
                if point == "HOOK_ROT_Q" else None)
        cls.run_ = analysis.run()

    def profile(self, point, head=None):
        ratio = plot_data.ratios(self.norms[point])
        return ratio.max(axis=0) if head is None else ratio[head]

    def test_before_and_after_over_dims(self):
        axes = plot.rope(self.run_, wavelengths=self.WAVELENGTHS)
        found = lines(axes)
        for label, point in (("before RoPE", "HOOK_Q"),
                             ("after RoPE", "HOOK_ROT_Q")):
            self.assertEqual(found[label][0].tolist(), list(range(8)))
            np.testing.assert_allclose(found[label][1], self.profile(point),
                                       rtol=1e-6)
        self.assertEqual(axes.get_xlabel(), "dim")
        self.assertEqual(axes.get_ylabel(),
                         "norm / mean of its head, largest head")
        self.assertEqual(axes.get_title(loc="left"), "Q, layer 4")
        self.assertEqual(found["massive: over 5"][1].tolist(), [5, 5])
        (top,) = axes.child_axes
        self.assertEqual(top.get_xlabel(), "wavelength, tokens")
        shown = dict(zip(top.get_xticks(), labels(top.get_xticklabels())))
        self.assertEqual(shown, {0: "6.28", 1: "60", 2: "600", 3: "6k",
                                 4: "6.28", 5: "60", 6: "600", 7: "6k"})

    def test_what_the_statistics_tell(self):
        (top,) = plot.rope(self.run_).child_axes
        self.assertEqual(dict(zip(top.get_xticks(),
                                  labels(top.get_xticklabels()))),
                         {3: "6k", 6: "600"})
        self.fails_after_close("not known", plot.rope, self.run_,
                               x="wavelength")

    def fails_after_close(self, *arguments, **options):
        plt.close("all")
        self.fails(*arguments, **options)

    def test_over_wavelengths(self):
        axes = plot.rope(self.run_, tensor="k", head=1, x="wavelength",
                         wavelengths=self.WAVELENGTHS)
        found = lines(axes)
        want = self.profile("HOOK_ROT_K", 1)
        for begin in (0, 4):
            x, y = found[f"after RoPE, dims {begin} to {begin + 3}"]
            self.assertEqual(x.tolist(), self.WAVELENGTHS)
            np.testing.assert_allclose(y, want[begin:begin + 4], rtol=1e-6)
        self.assertEqual(axes.get_xscale(), "log")
        self.assertEqual(axes.get_xlabel(), "wavelength, tokens")
        self.assertEqual(axes.get_title(loc="left"), "K, layer 4, head 1")

    def test_dims_that_are_not_rotated(self):
        axes = plot.rope(self.run_, wavelengths=self.WAVELENGTHS[:2])
        (span,) = [p for p in axes.patches
                   if p.get_label() == "not rotated"]
        self.assertEqual((span.get_x(), span.get_width()), (3.5, 4))

    def test_what_cannot_be_drawn(self):
        self.fails("wavelengths are 5 numbers", plot.rope, self.run_,
                   wavelengths=[1] * 5)
        self.fails("positive", plot.rope, self.run_, wavelengths=[1, 0])
        self.fails("has no head 3", plot.rope, self.run_, head=3)
        self.fails("'q' or 'k'", plot.rope, self.run_, tensor="v")
        self.fails("x is 'y'", plot.rope, self.run_, x="y")
        analysis = plot_data.Analysis()
        analysis.add("clean", 0, "HOOK_ROT_Q", np.ones((1, 4)))
        self.fails("has no hook_q", plot.rope, analysis.run())

    def test_heads_without_finite_norms(self):
        analysis = plot_data.Analysis()
        for point in ("HOOK_Q", "HOOK_ROT_Q"):
            analysis.add("clean", 0, point, [[np.nan] * 4, [np.nan, 1, 1, 4]])
        found = lines(plot.rope(analysis.run()))
        np.testing.assert_allclose(found["after RoPE"][1],
                                   [np.nan, .5, .5, 2])


class ByPositionTest(PlotCase):

    def test_kl_and_flips(self):
        axes = plot.by_position(self.run_)
        found = lines(axes)
        self.assertEqual(list(found), ["top_k:1", "bottom_k:1"])
        np.testing.assert_allclose(found["top_k:1"][1], [0, .5, 1.5, .25, 2])
        self.assertEqual(found["top_k:1"][0].tolist(), [0, 1, 2, 3, 4])
        marks = [line for line in axes.lines if line.get_label() == "_flips"]
        self.assertEqual(marks[0].get_xdata().tolist(), [1, 2, 4])
        self.assertEqual(marks[0].get_ydata().tolist(), [.5, 1.5, 2])
        self.assertEqual(len(marks[1].get_xdata()), 0)
        self.assertEqual(axes.get_ylabel(), "KL from clean, nats")
        self.assertEqual(axes.get_xlabel(), "position")
        self.assertEqual(axes.get_xlim(), (-0.5, 4.5))
        self.assertEqual(legend(axes), ["top_k:1", "bottom_k:1"])
        colours = {line.get_label(): line.get_color() for line in axes.lines}
        self.assertEqual(colours["top_k:1"], "#D55E00")
        self.assertEqual(colours["bottom_k:1"], "#0072B2")

    def test_log_probabilities_begin_at_one(self):
        axes = plot.by_position(self.run_, "logprob")
        found = lines(axes)
        self.assertEqual(list(found), ["clean", "top_k:1", "bottom_k:1"])
        self.assertEqual(found["top_k:1"][0].tolist(), [1, 2, 3, 4])
        self.assertEqual(found["top_k:1"][1].tolist(), [-2, -4, -6, -8])
        self.assertEqual(axes.get_ylabel(),
                         "log-probability of the token, nats")

    def test_many_positions_have_no_markers(self):
        analysis = plot_data.Analysis(("clean", "top_k:1"))
        analysis.compare("top_k:1", [1.0] * 999, [False] * 998 + [True],
                         [0.0] * 999)
        line, flips = plot.by_position(analysis.run()).lines
        self.assertEqual((line.get_marker(), flips.get_marker()), ("", "."))
        self.assertEqual(flips.get_xdata().tolist(), [998])

    def test_tokens(self):
        axes = plot.by_position(self.run_, tokens=["The", " c", " ", "$a$",
                                                   "x" * 40])
        self.assertEqual(labels(axes.get_xticklabels()), [
            "The", "c", "\N{OPEN BOX}", r"\$a\$",
            "x" * 15 + "\N{HORIZONTAL ELLIPSIS}"])
        self.assertEqual(axes.get_xlabel(), "token")
        axes.figure.canvas.draw()

    def test_one_arm_and_a_logarithm(self):
        axes = plot.by_position(self.run_["top_k:1"], log=True)
        self.assertEqual(list(lines(axes)), ["top_k:1"])
        self.assertEqual(axes.get_yscale(), "log")

    def test_not_finite(self):
        analysis = plot_data.Analysis(("clean", "top_k:1"), tokens=(1, 2, 3))
        analysis.compare("top_k:1", [1, math.nan, 2], [True, False, False],
                         [0, -1, -2])
        (x, y), = lines(plot.by_position(analysis.run())).values()
        np.testing.assert_array_equal(y, [1, np.nan, 2])

    def test_names_of_arms_are_no_formulas(self):
        names = ("clean", "_hidden", r"a$\frac$b", "<b>", "n" * 200, "\x07")
        analysis = plot_data.Analysis(names)
        for name in names[1:]:
            analysis.compare(name, [1] * 5, [True] * 5, [0] * 5)
        axes = plot.by_position(analysis.run())
        axes.figure.canvas.draw()
        self.assertEqual(legend(axes), [
            "\N{ZERO WIDTH SPACE}_hidden", r"a\$\frac\$b", "<b>",
            "n" * 47 + "\N{HORIZONTAL ELLIPSIS}",
            "\N{REPLACEMENT CHARACTER}"])

    def test_what_cannot_be_drawn(self):
        run = self.run_
        self.fails("y is 'x'", plot.by_position, run, "x")
        self.fails("negative", plot.by_position, run, "logprob", log=True)
        self.fails("2 texts for 5 positions", plot.by_position, run,
                   tokens=["a", "b"])
        self.fails("needs two arms", plot.by_position,
                   plot_data.Analysis().run())
        analysis = plot_data.Analysis(("clean", "top_k:1"))
        self.fails("'top_k:1' was not compared", plot.by_position,
                   analysis.run(), arms=["top_k:1"])


class AccuracyTest(PlotCase):

    RECORDS = [
        {"task": "city", "arm": "clean", "correct": 80, "n": 100},
        {"task": "city", "arm": "top_k:1", "correct": 76, "n": 100},
        {"task": "passkey", "arm": "clean", "correct": 100, "n": 100},
        {"task": "passkey", "arm": "top_k:1", "correct": 2, "n": 100}]

    def bars(self, axes):
        """label -> heights."""
        return {c.get_label(): [bar.get_height() for bar in c]
                for c in axes.containers if isinstance(
                    c, matplotlib.container.BarContainer)}

    def intervals(self, axes):
        """The ends of the whiskers, (x, low, high)."""
        ends = [c.get_children()[-1].get_segments()[0] for c in axes.containers
                if isinstance(c, matplotlib.container.ErrorbarContainer)]
        return sorted((s[0][0], s[0][1], s[1][1]) for s in ends)

    def test_bars_and_wilsons_intervals(self):
        axes = plot.accuracy(self.RECORDS, chance=0.5)
        self.assertEqual(self.bars(axes), {"clean": [80, 100],
                                           "top_k:1": [76, 2]})
        want = sorted(
            (x, *(100 * end for end in proportion_confint(
                k, 100, method="wilson")))
            for x, k in ((-.2, 80), (.2, 76), (.8, 100), (1.2, 2)))
        np.testing.assert_allclose(self.intervals(axes), want, rtol=1e-6)
        self.assertEqual(labels(axes.get_xticklabels()), ["city", "passkey"])
        self.assertEqual(legend(axes), ["clean", "top_k:1", "chance"])
        self.assertEqual(axes.get_ylabel(), "accuracy, %")
        self.assertEqual(axes.get_ylim(), (0, 112))
        self.assertEqual(sorted(t.get_text() for t in axes.texts),
                         ["100", "2", "76", "80"])
        self.assertEqual(lines(axes)["chance"][1].tolist(), [50, 50])
        faces = [matplotlib.colors.to_hex(c[0].get_facecolor()).upper()
                 for c in axes.containers
                 if isinstance(c, matplotlib.container.BarContainer)]
        self.assertEqual(faces, ["#7F7F7F", "#D55E00"])

    def test_given_intervals_objects_frames_and_orders(self):
        import pandas
        import polars

        records = [{"task": t, "arm": a, "accuracy": v, "low": v - .05,
                    "high": v + .05} for t, a, v in (
                        ("a", "x", .5), ("a", "y", .6), ("b", "x", .7))]
        for data in (records, pandas.DataFrame(records),
                     polars.DataFrame(records),
                     [type("R", (), record)() for record in records]):
            axes = plot.accuracy(data, order=["b", "a"], hue_order=["y", "x"],
                                 annotate=False, palette={"x": "red",
                                                          "y": "blue"})
            found = self.bars(axes)
            np.testing.assert_allclose(found["x"], [70, 50])
            np.testing.assert_allclose(found["y"], [60])
            self.assertEqual(labels(axes.get_xticklabels()), ["b", "a"])
            self.assertEqual(self.intervals(axes)[0][1:], (65, 75))
            self.assertEqual(list(axes.texts), [])

    def test_no_data(self):
        axes = plot.accuracy([
            {"task": "a", "arm": "x", "accuracy": math.nan},
            {"task": "b", "arm": "x", "correct": 0, "n": 0},
            {"task": "c", "arm": "x", "accuracy": 0.25}])
        self.assertEqual([t.get_text() for t in axes.texts],
                         ["no data", "no data", "25"])
        self.assertEqual(self.intervals(axes), [])

    def test_one_bar(self):
        axes = plot.accuracy([{"task": "a", "arm": "x", "accuracy": 1.0}])
        self.assertEqual(self.bars(axes), {"x": [100]})

    def test_wilson_against_statsmodels(self):
        for n in (1, 2, 7, 100, 1000):
            for k in {0, 1, n // 2, n - 1, n}:
                np.testing.assert_allclose(
                    plot.wilson(k, n), proportion_confint(
                        k, n, method="wilson"), rtol=1e-12, atol=1e-15)
        self.assertEqual(plot.wilson(0, 0), (0, 1))

    def test_what_cannot_be_drawn(self):
        one = {"task": "a", "arm": "x", "accuracy": 0.5}
        self.fails("no records", plot.accuracy, [])
        self.fails("two records with task 'a' and arm 'x'", plot.accuracy,
                   [one, one])
        self.fails("no field 'arm'", plot.accuracy, [{"task": "a"}])
        self.fails("no field 'accuracy'", plot.accuracy,
                   [{"task": "a", "arm": "x"}])
        self.fails("accuracy is 50", plot.accuracy, [{**one, "accuracy": 50}])
        self.fails("3 of 2 are correct", plot.accuracy,
                   [{"task": "a", "arm": "x", "correct": 3, "n": 2}])
        self.fails("order names 'z'", plot.accuracy, [one], order=["z"])
        self.fails("no colour for 'x'", plot.accuracy, [one], palette={})
        self.fails("0 colours for 1 bars", plot.accuracy, [one], palette=[])
        self.fails("not int", plot.accuracy, 5)


class SparklineTest(unittest.TestCase):

    def points(self, svg):
        root = ElementTree.fromstring(svg)
        return [[tuple(map(float, p.split(","))) for p in
                 line.get("points").split()] for line in root.iter("polyline")]

    def test_from_left_to_right_and_up(self):
        (points,) = self.points(plot.sparkline([0, 1, 0.5], width=104,
                                               height=24))
        self.assertEqual(points, [(2, 22), (52, 2), (102, 12)])

    def test_gaps_limits_and_nothing(self):
        svg = plot.sparkline([1, math.nan, 2, 2, math.inf, 9], low=0, high=4)
        self.assertEqual([len(p) for p in self.points(svg)], [2])
        self.assertEqual(len(re.findall("<circle", svg)), 2)
        for values in ([], [math.nan], [3], [3, 3]):
            ElementTree.fromstring(plot.sparkline(values))


class ColoursTest(unittest.TestCase):
    """Pictures can be read without telling red from green."""

    # Machado, Oliveira and Fernandes (2009), severity 1: what linear RGB looks
    # like to protanopes, deuteranopes and tritanopes.
    SEEN = {
        "protan": [[.152286, 1.052583, -.204868], [.114503, .786281, .099216],
                   [-.003882, -.048116, 1.051998]],
        "deutan": [[.367322, .860646, -.227968], [.280085, .672501, .047413],
                   [-.011820, .042940, .968881]],
        "tritan": [[1.255528, -.076749, -.178779], [-.078411, .930809, .147602],
                   [.004733, .691367, .303900]]}

    def lab(self, colours, seen=None):
        """CIELAB of colours as one sees them."""
        rgb = np.array([matplotlib.colors.to_rgb(c) for c in colours])
        rgb = np.where(rgb <= .04045, rgb / 12.92,
                       ((rgb + .055) / 1.055) ** 2.4)
        if seen is not None:
            rgb = np.clip(rgb @ np.array(self.SEEN[seen]).T, 0, 1)
        xyz = rgb @ np.array([[.4124, .3576, .1805], [.2126, .7152, .0722],
                              [.0193, .1192, .9505]]).T / [.9505, 1, 1.089]
        f = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * 841 / 108 + 4 / 29)
        return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]),
                         200 * (f[:, 1] - f[:, 2])], axis=1)

    def test_colours_of_lines_can_be_told_apart(self):
        from qkscope.plot import _figure

        for colours in (_figure.PALETTE, list(_figure.KINDS.values()),
                        list(_figure.TENSORS.values())):
            for seen in (None, *self.SEEN):
                lab = self.lab(colours, seen)
                for i in range(len(lab)):
                    for j in range(i):
                        self.assertGreater(np.linalg.norm(lab[i] - lab[j]), 10,
                                           (seen, colours[i], colours[j]))

    def test_no_two_arms_are_alike(self):
        from types import SimpleNamespace

        from qkscope.plot import _figure

        for kinds in ([], ["clean"], ["clean", "disrupted", "control"],
                      ["disrupted", "disrupted"]):
            for more in range(14):
                arms = [SimpleNamespace(name=f"arm {i}", kind=kind)
                        for i, kind in enumerate(kinds + [""] * more)]
                found = list(_figure.arm_colours(arms).values())
                self.assertEqual(len(found), len(arms))
                self.assertEqual(len(set(found)), len(arms), found)
                if len(arms) > 8:
                    continue
                lab = self.lab(found or ["#000000"], None)
                for i in range(len(lab)):
                    for j in range(i):
                        self.assertGreater(np.linalg.norm(lab[i] - lab[j]), 10)

    def test_heat_gets_lighter_with_every_step(self):
        from qkscope.plot import _figure

        for name, at in ((_figure.HEAT, np.linspace(0, 1, 17)),
                         (_figure.DIVERGING, np.linspace(0, .5, 9)),
                         (_figure.DIVERGING, np.linspace(1, .5, 9))):
            colours = matplotlib.colormaps[name](at)
            for seen in (None, *self.SEEN):
                light = self.lab(colours, seen)[:, 0]
                self.assertGreater(np.diff(light).min(), 1, (name, seen))


if __name__ == "__main__":
    unittest.main()
