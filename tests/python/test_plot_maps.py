"""What the axes of the pictures of one layer, and of one head, hold."""

import unittest
import warnings

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import plot_data
from matplotlib.patches import Rectangle

from qkscope import plot

warnings.simplefilter("error")


class PlotCase(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.analysis, cls.values = plot_data.three_arms()
        cls.run_ = cls.analysis.run()

    def tearDown(self):
        plt.close("all")

    def fails(self, text, call, *arguments, **options):
        """The call ends with one sentence that has the text, and leaves no
        figure."""
        with self.assertRaises(ValueError) as caught:
            call(*arguments, **options)
        self.assertIn(text, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(plt.get_fignums(), [])

    def frames(self, axes):
        """The (column, row) of the framed cells."""
        return {(round(p.get_x() + 0.5), round(p.get_y() + 0.5))
                for p in axes.patches if isinstance(p, Rectangle)
                and not p.get_fill()}


def shown(axes):
    """The image's values; NaN where it is masked."""
    return np.ma.filled(np.ma.masked_array(
        axes.images[-1].get_array(), dtype=float), np.nan)


def labels(ticks):
    return [tick.get_text() for tick in ticks]


class HeatmapTest(PlotCase):

    def test_heads_are_columns_and_dims_are_rows(self):
        axes = plot.heatmap(self.run_, 5, tensor="q")
        norms = self.values["clean", 5, "HOOK_ROT_Q"]
        np.testing.assert_array_equal(shown(axes), norms.T)
        self.assertEqual(axes.get_xlabel(), "head")
        self.assertEqual(axes.get_ylabel(), "dim")
        self.assertEqual(axes.get_title(loc="left"), "Q, layer 5, clean")
        self.assertEqual(axes.images[0].get_clim(), (0, float(norms.max())))
        self.assertEqual(labels(axes.get_xticklabels()), list("0123"))
        self.assertEqual(list(axes.get_xticks()), [0, 1, 2, 3])
        self.assertEqual(labels(axes.get_yticklabels()), list("01234567"))
        self.assertEqual(axes.get_xlim(), (-0.5, 3.5))
        self.assertEqual(axes.get_ylim(), (7.5, -0.5))
        bar = axes.images[0].colorbar
        self.assertEqual(bar.ax.get_ylabel(), "L2 norm over tokens")
        self.assertEqual(bar.extend, "neither")

    def test_kv_heads_are_named_and_arms_chosen(self):
        axes = plot.heatmap(self.run_, 1, tensor="k", arm="top_k:1",
                            orient="h")
        np.testing.assert_array_equal(
            shown(axes), self.values["top_k:1", 1, "HOOK_ROT_K"])
        self.assertEqual(axes.get_ylabel(), "KV head")
        self.assertEqual(axes.get_xlabel(), "dim")
        self.assertEqual(axes.get_title(loc="left"), "K, layer 1, top_k:1")

    def test_relative_to_the_mean_with_frames(self):
        norms = self.values["clean", 5, "HOOK_ROT_Q"]
        for orient in "vh":
            axes = plot.heatmap(self.run_, 5, relative=True, lambda_=3,
                                orient=orient)
            want = plot_data.ratios(norms)
            found = shown(axes).T if orient == "v" else shown(axes)
            np.testing.assert_allclose(found, want, rtol=1e-6)
            cells = plot_data.massive(norms, 3)
            self.assertGreater(len(cells), 1)
            self.assertEqual(self.frames(axes), cells if orient == "v" else
                             {(d, h) for h, d in cells})
            self.assertEqual(axes.images[0].colorbar.ax.get_ylabel(),
                             "norm / mean of its head")

    def test_massive_is_over_lambda_times_the_mean(self):
        # Ratios 2, 3 and 3 + 1e-6 of means 1, with other heads beside.
        norms = np.array([[0, 0, 1.0, 3.0], [1.0, 1.0, 0, 2.0],
                          [1 / 3 - 4e-7] * 3 + [3 + 1.2e-6]])
        axes = plot.heatmap(norms, lambda_=3)
        self.assertEqual(self.frames(axes), {(2, 3)})

    def test_draws_on_given_axes_and_keeps_their_style(self):
        figure, (left, right) = plt.subplots(1, 2)
        axes = plot.heatmap(self.run_, 0, ax=right, vmin=1, vmax=9, cbar=False,
                            cmap="viridis", title="mine")
        self.assertIs(axes, right)
        self.assertEqual(list(left.images), [])
        self.assertEqual(axes.images[0].get_clim(), (1, 9))
        self.assertEqual(axes.images[0].get_cmap().name, "viridis")
        self.assertIsNone(axes.images[0].colorbar)
        self.assertEqual(axes.get_title() or axes.get_title(loc="left"), "mine")
        self.assertEqual(len(figure.axes), 2)

    def test_style_does_not_leak(self):
        with matplotlib.rc_context({"font.size": 11, "axes.titlesize": 13}):
            self.check_style_does_not_leak()

    def check_style_does_not_leak(self):
        before = dict(matplotlib.rcParams)
        plot.heatmap(self.run_, 0)
        with plot.style():
            self.assertEqual(matplotlib.rcParams["font.size"], 8)
        self.assertEqual(dict(matplotlib.rcParams), before)

    def test_what_a_backend_sets_stays(self):
        # As a notebook's does with its first figure.
        before = matplotlib.rcParams["interactive"]
        self.addCleanup(matplotlib.interactive, before)
        with plot.style():
            matplotlib.interactive(not before)
        self.assertEqual(matplotlib.rcParams["interactive"], not before)

    def test_arrays_and_captures(self):
        norms = self.values["clean", 0, "HOOK_ROT_Q"]
        axes = plot.heatmap(norms)
        np.testing.assert_array_equal(shown(axes), norms.T)
        self.assertEqual(axes.get_title(loc="left"), "")
        axes = plot.heatmap(self.run_["clean"].q, 1)
        np.testing.assert_array_equal(
            shown(axes), self.values["clean", 1, "HOOK_ROT_Q"].T)
        self.assertEqual(axes.get_title(loc="left"), "Q, layer 1")
        axes = plot.heatmap([[1, 2, 3]])
        np.testing.assert_array_equal(shown(axes), [[1], [2], [3]])

    def test_what_is_not_finite_is_masked_and_counted(self):
        norms = np.ones((2, 4))
        norms[0, 1], norms[1, 2], norms[1, 3] = np.nan, np.inf, 7
        axes = plot.heatmap(norms)
        want = norms.T.copy()
        want[~np.isfinite(want)] = np.nan
        np.testing.assert_array_equal(shown(axes), want)
        self.assertEqual(axes.images[0].get_clim(), (0, 7))
        self.assertEqual(axes.images[0].colorbar.ax.get_ylabel(),
                         "L2 norm over tokens (grey: 2 not finite)")
        axes = plot.heatmap(norms, relative=True)
        np.testing.assert_allclose(shown(axes).T, [
            [1, np.nan, 1, 1], [1 / 3, 1 / 3, np.nan, 7 / 3]])
        axes = plot.heatmap(np.full((2, 3), np.nan))
        self.assertTrue(np.isnan(shown(axes)).all())
        self.assertEqual(axes.images[0].get_clim(), (0, 1))
        axes.figure.canvas.draw()

    def test_all_zero(self):
        axes = plot.heatmap(np.zeros((2, 3)), relative=True, lambda_=5)
        np.testing.assert_array_equal(shown(axes), np.zeros((3, 2)))
        self.assertEqual(self.frames(axes), set())

    def test_one_head_one_dim(self):
        axes = plot.heatmap([[2.0]])
        np.testing.assert_array_equal(shown(axes), [[2]])
        axes.figure.canvas.draw()

    def test_many_heads_have_few_ticks(self):
        axes = plot.heatmap(np.ones((64, 256)))
        self.assertLessEqual(len(axes.get_xticks()), 9)
        self.assertEqual(labels(axes.get_xticklabels())[:3], ["0", "8", "16"])
        self.assertLessEqual(len(axes.get_yticks()), 9)

    def test_captured_heads_keep_their_numbers(self):
        analysis = plot_data.Analysis()
        analysis.add("clean", 0, "HOOK_ROT_Q", np.ones((2, 4)), heads=[3, 7])
        axes = plot.heatmap(analysis.run())
        self.assertEqual(labels(axes.get_xticklabels()), ["3", "7"])

    def test_raw_values_are_summed_over_positions(self):
        raw = np.random.default_rng(0).normal(size=(5, 2, 4)).astype("<f4")
        analysis = plot_data.Analysis()
        analysis.add("clean", 3, "HOOK_ROT_Q", raw, form="RAW")
        want = [[sum(float(raw[t, h, d]) ** 2 for t in range(5)) ** 0.5
                 for h in range(2)] for d in range(4)]
        np.testing.assert_allclose(shown(plot.heatmap(analysis.run())), want,
                                   rtol=1e-12)

    def test_what_cannot_be_drawn(self):
        run = self.run_
        self.fails("say which one", plot.heatmap, run)
        self.fails("layers 0, 1, 5: not 2", plot.heatmap, run, 2)
        self.fails("no arm 'other'; it has clean, top_k:1, bottom_k:1",
                   plot.heatmap, run, 0, arm="other")
        self.fails("has no hook_z (before, prefill); it has hook_rot_k",
                   plot.heatmap, run, 0, tensor="z")
        self.fails("tensor is 'w'", plot.heatmap, run, 0, tensor="w")
        self.fails("(after, prefill)", plot.heatmap, run, 0, stage="after")
        self.fails("orient", plot.heatmap, run, 0, orient="x")
        self.fails("vmin must be less", plot.heatmap, run, 0, vmin=2, vmax=1)
        self.fails("not str", plot.heatmap, "a.safetensors")
        self.fails("(3,)", plot.heatmap, [1, 2, 3])
        self.fails("(0, 4)", plot.heatmap, np.ones((0, 4)))
        analysis = plot_data.Analysis()
        self.fails("no captured values", plot.heatmap, analysis.run(), 0)
        analysis.add("clean", 0, "HOOK_ROT_Q", np.ones((5, 2)),
                     form="NORM_PER_TOKEN")
        self.fails("was captured as norm_per_token, shape (5, 2)",
                   plot.heatmap, analysis.run(), 0)


class SurfaceTest(PlotCase):

    def corners(self, axes):
        """(x, y, z) of all corners of the surface."""
        # matplotlib has no public way to ask.
        (surface,) = axes.collections
        return surface._faces[~np.broadcast_to(
            surface._invalid_vertices, surface._faces.shape[:2])]

    def test_a_plateau_per_entry(self):
        axes = plot.surface(self.run_, 5)
        norms = self.values["clean", 5, "HOOK_ROT_Q"]
        self.assertEqual(axes.name, "3d")
        low, high = axes.get_zlim()
        self.assertAlmostEqual(low, 0)
        self.assertAlmostEqual(high, float(norms.max()), places=4)
        self.assertEqual((axes.get_xlabel(), axes.get_ylabel(),
                          axes.get_zlabel()),
                         ("head", "dim", "L2 norm over tokens"))
        corners = self.corners(axes)
        for head in range(4):
            for dim in range(plot_data.DIMS):
                near = ((np.abs(corners[:, 0] - head) < 0.46)
                        & (np.abs(corners[:, 1] - dim) < 0.46))
                self.assertEqual(set(np.round(corners[near, 2], 4)),
                                 {round(float(norms[head, dim]), 4)})

    def test_limits_cut_the_surface(self):
        axes = plot.surface(self.run_, 5, vmax=2)
        self.assertLessEqual(self.corners(axes)[:, 2].max(), 2)
        self.assertAlmostEqual(axes.get_zlim()[1], 2)

    def test_one_head_and_holes(self):
        norms = np.ones((1, 6))
        norms[0, 2], norms[0, 4] = np.nan, 5
        axes = plot.surface(norms, relative=False)
        heights = self.corners(axes)[:, 2]
        self.assertEqual(np.nanmax(heights), 5)
        axes.figure.canvas.draw()

    def test_needs_axes_with_three_dimensions(self):
        _, axes = plt.subplots()
        with self.assertRaisesRegex(ValueError, "projection='3d'"):
            plot.surface(self.run_, 5, ax=axes)


class QkvTest(PlotCase):

    def test_three_maps_on_one_scale(self):
        axes = plot.qkv(self.run_, 1)
        self.assertEqual(len(axes), 3)
        top = max(float(self.values["clean", 1, p].max())
                  for p in plot_data.SHAPES)
        for one, (point, name) in zip(axes, (("HOOK_ROT_Q", "Q"),
                                             ("HOOK_ROT_K", "K"),
                                             ("HOOK_V", "V"))):
            np.testing.assert_array_equal(
                shown(one), self.values["clean", 1, point].T)
            self.assertEqual(one.images[0].get_clim(), (0, top))
            self.assertEqual(one.get_title(loc="left"), name)
        self.assertEqual([one.get_xlabel() for one in axes],
                         ["head", "KV head", "KV head"])
        figure = axes[0].figure
        self.assertEqual(len(figure.axes), 4)  # one colour bar
        self.assertEqual(figure.get_suptitle(), "layer 1, clean")

    def test_surfaces(self):
        axes = plot.qkv(self.run_, 0, arm="bottom_k:1", kind="surface")
        self.assertEqual([one.name for one in axes], ["3d"] * 3)
        self.assertEqual(len({one.get_zlim() for one in axes}), 1)

    def test_stages(self):
        analysis = plot_data.Analysis()
        before = plot_data.made_up(1, (2, 4))
        analysis.add("clean", 0, "HOOK_ROT_Q", before)
        after = analysis.add("clean", 0, "HOOK_ROT_K", before + 1,
                             stage="AFTER")
        axes = plot.qkv(analysis.run(), stage="after")
        np.testing.assert_array_equal(shown(axes[1]), after.T)
        self.assertEqual(axes[1].get_title(loc="left"), "K after")
        self.assertEqual([text.get_text() for text in axes[0].texts],
                         ["hook_rot_q was not captured"])

    def test_on_given_axes(self):
        figure, given = plt.subplots(1, 2)
        axes = plot.qkv(self.run_, 0, tensors=("k", "v"), ax=given)
        self.assertEqual(list(axes), list(given))
        with self.assertRaisesRegex(ValueError, "2 axes for 3 tensors"):
            plot.qkv(self.run_, 0, ax=given)
        self.assertEqual(plt.get_fignums(), [figure.number])

    def test_a_missing_tensor_leaves_a_sentence(self):
        analysis = plot_data.Analysis()
        analysis.add("clean", 0, "HOOK_ROT_Q", np.ones((2, 4)))
        run = analysis.run()
        for kind in ("heatmap", "surface"):
            axes = plot.qkv(run, kind=kind)
            self.assertEqual([text.get_text() for text in axes[2].texts],
                             ["hook_v was not captured"])
            self.assertFalse(axes[2].axison)
            axes[0].figure.canvas.draw()
            plt.close("all")
        self.fails("has no hook_rot_k", plot.qkv, run, 0, tensors=("k", "v"))
        self.fails("kind", plot.qkv, run, 0, kind="pie")


class LayersTest(PlotCase):

    def test_a_row_per_layer(self):
        axes = plot.layers(self.run_, 1, relative=False, lambda_=3)
        want = np.array([self.values["clean", layer, "HOOK_ROT_Q"][1]
                         for layer in plot_data.LAYERS])
        np.testing.assert_array_equal(shown(axes), want)
        self.assertEqual(labels(axes.get_yticklabels()), ["0", "1", "5"])
        self.assertEqual((axes.get_xlabel(), axes.get_ylabel()),
                         ("dim", "layer"))
        self.assertEqual(axes.get_title(loc="left"), "Q, head 1")
        self.assertEqual(self.frames(axes), {
            (dim, row) for row, layer in enumerate(plot_data.LAYERS)
            for head, dim in plot_data.massive(
                self.values["clean", layer, "HOOK_ROT_Q"], 3) if head == 1})

    def test_relative_by_default(self):
        axes = plot.layers(self.run_, 0, tensor="k")
        want = [plot_data.ratios(self.values["clean", layer, "HOOK_ROT_K"])[0]
                for layer in plot_data.LAYERS]
        np.testing.assert_allclose(shown(axes), want, rtol=1e-6)

    def test_layers_of_different_shapes(self):
        analysis = plot_data.Analysis()
        wide, narrow, few = np.ones((4, 8)), np.ones((4, 4)), np.ones((2, 8))
        wide[3, 7], narrow[3, 0] = 5, np.inf
        for layer, norms in enumerate((wide, narrow, few)):
            analysis.add("clean", layer, "HOOK_ROT_Q", norms)
        axes = plot.layers(analysis.run(), 3, relative=False)
        found = shown(axes)
        np.testing.assert_array_equal(found[0], wide[3])
        np.testing.assert_array_equal(found[1], [np.nan, 1, 1, 1]
                                      + [np.nan] * 4)
        self.assertTrue(np.isnan(found[2]).all())
        hatched = {(p.get_x(), p.get_y(), p.get_width())
                   for p in axes.patches if p.get_hatch()}
        self.assertEqual(hatched, {(3.5, 0.5, 4), (-0.5, 1.5, 8)})
        self.assertIn("grey: 1 not finite",
                      axes.images[0].colorbar.ax.get_ylabel())
        self.fails_head(analysis.run())

    def fails_head(self, run):
        plt.close("all")
        self.fails("has no head 9; it has 4, the last is 3", plot.layers, run,
                   9)

    def test_one_layer(self):
        analysis = plot_data.Analysis()
        analysis.add("clean", 2, "HOOK_ROT_Q", np.ones((1, 4)))
        axes = plot.layers(analysis.run(), 0)
        np.testing.assert_array_equal(shown(axes), [[1, 1, 1, 1]])
        self.assertEqual(labels(axes.get_yticklabels()), ["2"])


class DifferenceTest(PlotCase):

    def test_two_arms_of_a_run(self):
        axes = plot.difference(self.run_, layer=1, arms=("clean", "top_k:1"))
        want = (self.values["top_k:1", 1, "HOOK_ROT_Q"].astype(float)
                - self.values["clean", 1, "HOOK_ROT_Q"]).T
        np.testing.assert_array_equal(shown(axes), want)
        low, high = axes.images[0].get_clim()
        self.assertEqual(low, -high)
        self.assertEqual(high, np.abs(want).max())
        self.assertEqual(axes.get_title(loc="left"),
                         "Q, layer 1, top_k:1 \N{MINUS SIGN} clean")
        self.assertEqual(axes.images[0].get_cmap().name, "RdBu_r")

    def test_two_runs(self):
        other, values = plot_data.three_arms()
        name = plot_data.layer_name("clean", 0, "HOOK_ROT_K")
        other.tensors[name] = other.tensors[name] + np.float32(2)
        axes = plot.difference(self.run_, other.run(), 0, tensor="k",
                               orient="h", vmax=3)
        np.testing.assert_allclose(shown(axes), 2, rtol=1e-6)
        self.assertEqual(axes.images[0].get_clim(), (-3, 3))

    def test_equal_runs(self):
        axes = plot.difference(self.run_, self.run_, 0)
        np.testing.assert_array_equal(shown(axes), 0)
        self.assertEqual(axes.images[0].get_clim(), (-1, 1))

    def test_kv_heads_are_repeated_for_query_heads(self):
        analysis = plot_data.Analysis(("clean", "top_k:1"))
        few = analysis.add("clean", 0, "HOOK_ROT_K",
                           plot_data.made_up(1, (2, 4)), group_size=2)
        many = analysis.add("top_k:1", 0, "HOOK_ROT_K",
                            plot_data.made_up(2, (4, 4)))
        run = analysis.run()
        axes = plot.difference(run, tensor="k", arms=("clean", "top_k:1"),
                               orient="h")
        want = [[float(many[h, d]) - float(few[h // 2, d]) for d in range(4)]
                for h in range(4)]
        np.testing.assert_array_equal(shown(axes), want)
        axes = plot.difference(run, tensor="k", arms=("top_k:1", "clean"),
                               orient="h")
        np.testing.assert_array_equal(shown(axes), -np.array(want))

    def test_not_finite_in_either(self):
        axes = plot.difference([[1, np.nan, np.inf, np.inf]],
                               [[2, 2, 2, np.inf]], orient="h")
        np.testing.assert_array_equal(shown(axes), [[1] + [np.nan] * 3])

    def test_what_cannot_be_drawn(self):
        run = self.run_
        self.fails("needs two things", plot.difference, run, layer=0)
        self.fails("must have two", plot.difference, run, layer=0,
                   arms=("clean",))
        self.fails("(2, 3) and (2, 4)", plot.difference, np.ones((2, 3)),
                   np.ones((2, 4)))
        # Without a group size of 2, two heads are not copies.
        self.fails("(2, 4) and (4, 4)", plot.difference, np.ones((2, 4)),
                   np.ones((4, 4)))


if __name__ == "__main__":
    unittest.main()
