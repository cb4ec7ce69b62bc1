"""How values and axes are written in each of Grafana's units, more or less."""

import math

from matplotlib.ticker import MaxNLocator


def _scaled(value, units, base, digits=3):
    size = abs(value)
    step = 0
    while step < len(units) - 1 and size >= base:
        size /= base
        step += 1
    shown = math.copysign(size, value) if value else 0
    text = f"{shown:.{digits}g}" if abs(shown) < 1000 else f"{shown:.0f}"
    return text + units[step]


def _seconds(value):
    if value == 0:
        return "0 s"
    if abs(value) < 1e-3:
        return f"{value * 1e6:.3g} µs"
    if abs(value) < 1:
        return f"{value * 1e3:.3g} ms"
    if abs(value) < 60:
        return f"{value:.3g} s"
    if abs(value) < 3600:
        return f"{value / 60:.3g} min"
    if abs(value) < 86400:
        return f"{value / 3600:.3g} h"
    return f"{value / 86400:.3g} d"


def written(value, unit, decimals=None):
    """The value as Grafana would write it, more or less."""
    if value is None or math.isnan(value):
        return ""
    if unit == "bool_yes_no":
        return "Yes" if value else "No"
    if unit in ("s", "dtdurations"):
        return _seconds(value)
    if unit == "percentunit":
        places = decimals if decimals is not None else 1
        return f"{value * 100:.{places}f} %".replace(".0 %", " %")
    if unit in ("bytes", "Bps"):
        return _scaled(value, [" B", " KiB", " MiB", " GiB", " TiB"], 1024) + (
            "/s" if unit == "Bps" else "")
    number = (f"{value:.{decimals}f}" if decimals is not None and
              abs(value) < 1000 else _scaled(value, ["", " K", " M", " G"],
                                             1000))
    suffix = {"reqps": " req/s", "cps": " /s", "ops": " /s", "celsius": " °C",
              "watt": " W"}
    return number + suffix.get(unit, "")


class Ticks(MaxNLocator):
    """Round numbers of the unit: powers of two for bytes, days for times of
    days."""

    def __init__(self, unit):
        super().__init__(5)
        self._unit = unit

    def tick_values(self, vmin, vmax):
        size = 1
        if self._unit in ("bytes", "Bps"):
            while size * 1024 <= vmax:
                size *= 1024
        elif self._unit == "dtdurations":
            size = next((one for one in (86400, 3600, 60)
                         if vmax >= 2 * one), 1)
        return [size * tick for tick in
                super().tick_values(vmin / size, vmax / size)]
