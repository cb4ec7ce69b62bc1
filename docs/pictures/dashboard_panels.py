"""The kinds of panels that dashboards.py draws."""

import re
import time

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dashboard_units import Ticks, written

PAGE, EDGE, INK, GREY = "#F4F5F5", "#D8D9DB", "#24292E", "#6E7278"
NAMED = {"green": "#1A7F4B", "orange": "#E07B00", "red": "#C4162A",
         "blue": "#1F60C4", "text": INK}
PALETTE = ["#4C9F70", "#E0A800", "#3D85C6", "#D9634D", "#7B61B5", "#17A2A2",
           "#B5651D", "#C2478A", "#6B7A8F", "#8DB600", "#A05195", "#2F4B7C"]
SCHEMES = {"Inferno": "inferno", "Viridis": "viridis", "Magma": "magma"}


class Place:
    """A panel's box in the figure; all sizes are pixels."""

    def __init__(self, figure, box, width, height):
        self.figure, self.box = figure, box
        self.width, self.height = width, height

    def axes(self, left, top, right, bottom):
        x, y, w, h = self.box
        return self.figure.add_axes([
            (x + left) / self.width,
            1 - (y + h - bottom) / self.height,
            (w - left - right) / self.width,
            (h - top - bottom) / self.height])

    def text(self, x, y, text, **style):
        return self.figure.text(
            (self.box[0] + x) / self.width,
            1 - (self.box[1] + y) / self.height, text, **style)


def coloured(value, panel_or_steps):
    steps = (panel_or_steps if isinstance(panel_or_steps, list) else
             panel_or_steps["fieldConfig"]["defaults"]["thresholds"]["steps"])
    name = steps[0]["color"]
    for step in steps[1:]:
        if value >= step["value"]:
            name = step["color"]
    return NAMED[name]


def label(target, labels):
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""),
                  target.get("legendFormat", ""))
    return text or ", ".join(f"{k}={v}" for k, v in sorted(labels.items()))


def all_series(panel, answers):
    """[(name, times, values)] of all queries, gaps as NaN."""
    out = []
    for target, answer in zip(panel["targets"], answers):
        for labels, points in answer:
            times = np.array([at for at, _ in points])
            values = np.array([value for _, value in points], float)
            out.append((label(target, labels), times, values))
    return out


def _title(place, panel):
    place.text(10, 9, panel["title"], fontsize=8.8, fontweight="bold",
               va="top", color=INK)


def _defaults(panel):
    defaults = panel["fieldConfig"]["defaults"]
    return defaults["unit"], defaults.get("decimals")


def _no_data(place, text="No data"):
    place.text(place.box[2] / 2, place.box[3] / 2, text, fontsize=11,
               ha="center", va="center", color=GREY)


def draw_stat(place, panel, answers):
    unit, decimals = _defaults(panel)
    series = all_series(panel, answers)
    values = [v for _, _, vs in series for v in vs[-1:] if not np.isnan(v)]
    if not values:
        nothing = panel["fieldConfig"]["defaults"].get("noValue", "No data")
        _no_data(place, nothing)
        return
    value = values[-1]
    colour = coloured(value, panel)
    _, times, points = series[-1]
    if panel["options"]["graphMode"] == "area" and len(points) > 2:
        axes = place.axes(1, place.box[3] * 0.62, 1, 1)
        axes.fill_between(times, points, min(0, np.nanmin(points)),
                          color=colour, alpha=0.15, linewidth=0)
        axes.plot(times, points, color=colour, linewidth=1)
        axes.set_xlim(times[0], times[-1])
        axes.axis("off")
    place.text(place.box[2] / 2, place.box[3] * 0.5,
               written(value, unit, decimals), fontsize=23, ha="center",
               va="center", color=colour, fontweight="bold")


def _time_axis(axes, start, end):
    axes.set_xlim(start, end)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(
        lambda at, _: time.strftime("%H:%M:%S", time.gmtime(at))))
    axes.tick_params(labelsize=7, colors=GREY, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _legend(place, entries):
    """Names below the plot, as many lines as they need; returns the height."""
    x, y, lines = 12, place.box[3] - 14, [[]]
    for name, colour in entries:
        capitals = sum(letter.isupper() for letter in name)
        width = 28 + 5.8 * len(name) + 1.6 * capitals
        if x + width > place.box[2] and lines[-1]:
            lines.append([])
            x = 12
        lines[-1].append((x, name, colour))
        x += width
    for number, line in enumerate(reversed(lines)):
        for x, name, colour in line:
            at = y - 15 * number
            place.text(x, at, "▬", fontsize=8, color=colour, va="center")
            place.text(x + 14, at, name, fontsize=7.5, color=INK, va="center")
    return 15 * len(lines) + 8


def _colours(panel, names):
    fixed = {}
    for one in panel["fieldConfig"].get("overrides", []):
        for prop in one["properties"]:
            if prop["id"] == "color":
                fixed[one["matcher"]["options"]] = prop["value"]["fixedColor"]
    return [fixed.get(name, PALETTE[i % len(PALETTE)])
            for i, name in enumerate(names)]


def draw_timeseries(place, panel, answers):
    unit, _ = _defaults(panel)
    series = all_series(panel, answers)
    series = [one for one in series if not np.isnan(one[2]).all()]
    if not series:
        _no_data(place)
        return
    colours = _colours(panel, [name for name, _, _ in series])
    below = _legend(place, [(one[0], colour)
                            for one, colour in zip(series, colours)])
    axes = place.axes(62, 34, 14, below + 20)
    grid = np.unique(np.concatenate([times for _, times, _ in series]))
    custom = panel["fieldConfig"]["defaults"]["custom"]
    if custom.get("stacking", {}).get("mode") == "normal":
        floor = np.zeros(len(grid))
        for (_, times, values), colour in zip(series, colours):
            values = np.nan_to_num(_on_grid(grid, times, values))
            axes.fill_between(grid, floor, floor + values, color=colour,
                              alpha=0.55, linewidth=0.6)
            floor = floor + values
        top = floor.max()
    else:
        for (_, times, values), colour in zip(series, colours):
            values = _on_grid(grid, times, values)
            axes.plot(grid, values, color=colour, linewidth=1.3)
            axes.fill_between(grid, 0, values, color=colour, alpha=0.06,
                              linewidth=0)
        top = max(np.nanmax(values) for _, _, values in series)
    top = max(top * 1.08, custom.get("axisSoftMax", 0)) or 1
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get(
            "steps", [])[1:]:
        if custom.get("thresholdsStyle") and step["value"] <= top:
            axes.axhline(step["value"], color=NAMED[step["color"]],
                         linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(0, top)
    axes.grid(axis="y", color="#ECEDEE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(Ticks(unit))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: written(value, unit)))
    _time_axis(axes, grid[0], grid[-1] if len(grid) > 1 else grid[0] + 1)


def _on_grid(grid, times, values):
    out = np.full(len(grid), np.nan)
    out[np.searchsorted(grid, times)] = values
    return out


def _ramp(share):
    ramp = LinearSegmentedColormap.from_list("ramp", ["#3D85C6", "#7B3FA0"])
    return ramp(share)


def draw_bargauge(place, panel, answers):
    unit, decimals = _defaults(panel)
    bars = [(name, values[-1]) for name, _, values in
            all_series(panel, answers) if not np.isnan(values[-1])]
    if not bars:
        _no_data(place)
        return
    if all(re.fullmatch(r"\d+", name) for name, _ in bars):
        bars.sort(key=lambda bar: int(bar[0]))
    names, values = zip(*bars)
    defaults = panel["fieldConfig"]["defaults"]
    high = defaults.get("max", max(max(values), 0) or 1)
    low = min(0, min(values))
    by_steps = defaults["color"]["mode"] == "thresholds"
    colours = [coloured(value, panel) if by_steps else
               _ramp((value - low) / ((high - low) or 1)) for value in values]
    places = range(len(bars))
    if panel["options"]["orientation"] == "vertical":
        axes = place.axes(44, 38, 10, 26)
        axes.bar(places, values, color=colours, width=0.8)
        axes.set_xticks(places, names)
        axes.set_xlim(-0.6, len(bars) - 0.4)
        axes.set_ylim(low * 1.1, high * 1.15)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=decimals is None))
        axes.grid(axis="y", color="#ECEDEE", linewidth=0.8)
        axes.set_axisbelow(True)
        best = max(range(len(values)), key=lambda i: abs(values[i]))
        axes.text(best, values[best], written(values[best], unit, decimals),
                  ha="center", fontsize=7.5, color=INK,
                  va="bottom" if values[best] >= 0 else "top")
    else:
        axes = place.axes(90, 38, 78, 12)
        axes.barh(places, [high] * len(bars), color="#F0F1F2", height=0.62)
        axes.barh(places, values, color=colours, height=0.62)
        axes.set_yticks(places, names)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(0, high)
        axes.set_xticks([])
        for at, value, colour in zip(places, values, colours):
            axes.text(high * 1.02, at, written(value, unit, decimals),
                      va="center", fontsize=9, color=colour,
                      fontweight="bold")
    axes.tick_params(labelsize=7.5, colors=GREY, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _rows_of_heatmap(panel, answers):
    """Names of rows, times, and values (rows, times)."""
    series = all_series(panel, answers)
    series.sort(key=lambda one: float(one[0]))
    grid = np.unique(np.concatenate([times for _, times, _ in series]))
    cells = np.array([_on_grid(grid, times, values)
                      for _, times, values in series])
    if panel["targets"][0]["format"] == "heatmap":
        # Buckets count all below them, too.
        cells = np.diff(np.nan_to_num(cells), axis=0, prepend=0)
    return [name for name, _, _ in series], grid, cells


def draw_heatmap(place, panel, answers):
    if not answers[0]:
        _no_data(place)
        return
    unit, decimals = _defaults(panel)
    names, grid, cells = _rows_of_heatmap(panel, answers)
    options = panel["options"]
    axes = place.axes(48, 36, 66, 26)
    cells = np.where(cells <= options["filterValues"]["le"], np.nan, cells)
    high = options["color"].get("max") or np.nanmax(cells) or 1
    step = np.median(np.diff(grid)) if len(grid) > 1 else 1
    image = axes.imshow(
        cells, origin="lower", aspect="auto", vmin=0, vmax=high,
        cmap=SCHEMES[options["color"]["scheme"]], interpolation="nearest",
        extent=(grid[0] - step / 2, grid[-1] + step / 2, -0.5,
                len(names) - 0.5))
    axes.set_facecolor("#F7F7F8")
    every = max(1, len(names) // 8)
    row_unit = options["yAxis"].get("unit", "none")
    axes.set_yticks(range(0, len(names), every), [
        name if row_unit == "none" or name == "+Inf" else
        written(float(name), row_unit) for name in names[::every]])
    _time_axis(axes, grid[0] - step / 2, grid[-1] + step / 2)
    bar = place.axes(place.box[2] - 58, 36, 48, 26)
    colours = place.figure.colorbar(image, cax=bar)
    colours.outline.set_visible(False)
    bar.tick_params(labelsize=7, colors=GREY, length=0)
    bar.yaxis.set_major_locator(MaxNLocator(4))
    bar.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: written(value, unit, decimals)))


def _merged(panel, answers):
    """Names of columns, and rows as name -> value, as the transformations make
    them: merge by equal labels, sort, leave out, rename."""
    steps = {one["id"]: one["options"] for one in panel["transformations"]}
    organize = steps["organize"]
    rows = {}
    key = next(iter(sorted(organize["indexByName"],
                           key=organize["indexByName"].get)))
    for target, answer in zip(panel["targets"], answers):
        for labels, points in answer:
            row = rows.setdefault(labels[key], {})
            row.update(labels)
            row[f"Value #{target['refId']}"] = points[-1][1]
    listed = list(rows.values())
    listed.sort(key=(lambda row: float(row[key])) if "sortBy" in steps
                else (lambda row: row[key]))
    order = sorted(organize["indexByName"], key=organize["indexByName"].get)
    names = [name for name in order
             if name not in organize["excludeByName"]]
    titles = [organize["renameByName"].get(name, name) for name in names]
    return titles, [[row.get(name) for name in names] for row in listed]


def draw_table(place, panel, answers):
    titles, rows = _merged(panel, answers)
    styles = {one["matcher"]["options"]:
              {prop["id"]: prop["value"] for prop in one["properties"]}
              for one in panel["fieldConfig"]["overrides"]}
    width, height = place.box[2] - 24, place.box[3] - 34
    line = min(26, height / (len(rows) + 1))
    column = width / len(titles)
    small = min(8.5, line * 0.55)
    for number, title in enumerate(titles):
        place.text(14 + number * column, 34 + line / 2, title, fontsize=small,
                   fontweight="bold", va="center", color=GREY)
    for at, row in enumerate(rows, 1):
        y = 34 + line * at
        axes = place.axes(12, y, 12, place.box[3] - y - 1)
        axes.axhline(0.5, color="#E4E5E7", linewidth=1)
        axes.axis("off")
        for number, value in enumerate(row):
            style = styles.get(titles[number], {})
            text, colour = value or "", INK
            if isinstance(value, float):
                text = written(value, style.get("unit", "short"))
                if "thresholds" in style:
                    colour = coloured(value, style["thresholds"]["steps"])
            place.text(14 + number * column, y + line / 2, text,
                       fontsize=small, va="center", color=to_rgb(colour))


KINDS = {"stat": draw_stat, "timeseries": draw_timeseries,
         "bargauge": draw_bargauge, "heatmap": draw_heatmap,
         "table": draw_table}


def draw(place, panel, answers):
    _title(place, panel)
    KINDS[panel["type"]](place, panel, answers)
