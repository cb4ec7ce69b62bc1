"""A line as small as a word, as SVG. Needs no matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable


def sparkline(values: Iterable[float], *, width: int = 120, height: int = 24,
              colour: str = "#0072B2", low: float | None = None,
              high: float | None = None) -> str:
    """Returns an inline SVG element of these many pixels, with a line through
    the values from left to right; values that are not finite are gaps.

    low, high: the values at the bottom and the top; the smallest and the
        largest by default. Without a finite value, the element is empty.
    """
    numbers = [float(value) for value in values]
    finite = [number for number in numbers if math.isfinite(number)]
    bottom = min(finite, default=0.0) if low is None else low
    top = max(finite, default=1.0) if high is None else high
    span = (top - bottom) or 1.0
    step = (width - 4) / max(len(numbers) - 1, 1)

    def place(index: int, number: float) -> str:
        share = min(max((number - bottom) / span, 0.0), 1.0)
        return f"{2 + step * index:.1f},{height - 2 - (height - 4) * share:.1f}"

    parts: list[list[str]] = [[]]
    for index, number in enumerate(numbers):
        if math.isfinite(number):
            parts[-1].append(place(index, number))
        elif parts[-1]:
            parts.append([])
    marks = []
    for points in filter(None, parts):
        if len(points) == 1:
            x, y = points[0].split(",")
            marks.append(f'<circle cx="{x}" cy="{y}" r="1.5"/>')
        else:
            marks.append(f'<polyline points="{" ".join(points)}" fill="none" '
                         f'stroke="{colour}" stroke-width="1.5"/>')
    return (f'<svg width="{width}" height="{height}" viewBox="0 0 {width} '
            f'{height}" fill="{colour}" role="img">{"".join(marks)}</svg>')
