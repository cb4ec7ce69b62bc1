"""Pictures of runs, as matplotlib axes.

Functions for one axes take `ax=None` and return the axes, as seaborn's do:
without `ax` they make a figure of a journal's column or page, in a style that
colour-blind readers can use; with `ax` they draw there and leave the style to
you. qkv() makes a figure of several axes. Data come first, options by name.

    axes = qkscope.plot.heatmap(run, layer=9, tensor="k")
    axes.figure.savefig("k.pdf")

matplotlib comes with `pip install 'qkscope[plot]'`; only drawing needs it.
Values that cannot be drawn raise ValueError with a sentence that says why.
"""

from qkscope.plot._figure import COLUMN, PAGE, PALETTE, style
from qkscope.plot.bars import accuracy, wilson
from qkscope.plot.compare import by_position, difference
from qkscope.plot.heads import heatmap, qkv, surface
from qkscope.plot.layers import by_layer, layers, ratio_distribution
from qkscope.plot.rope import rope
from qkscope.plot.sparkline import sparkline

__all__ = ["COLUMN", "PAGE", "PALETTE", "accuracy", "by_layer", "by_position",
           "difference", "heatmap", "layers", "qkv", "ratio_distribution",
           "rope", "sparkline", "style", "surface", "wilson"]
