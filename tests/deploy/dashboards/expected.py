"""How expectations are written: what a panel must show after the known work.

An expectation is a function of a `See`, which raises AssertionError. A panel
without one fails the test. Those of the dashboards are in expected_*.py.
"""

import bisect
import math

import ask

EXPECTED = {}


def expect(dashboard, *titles):
    """Makes a function the expectation of these panels."""
    def keep(check):
        for title in titles:
            assert (dashboard, title) not in EXPECTED, title
            EXPECTED[dashboard, title] = check
        return check
    return keep


class See:
    """A panel's answers, and the facts to hold them against."""

    def __init__(self, facts, panel, chosen):
        self.facts, self.panel, self._chosen = facts, panel, chosen
        self.job = ask.job_of(panel)
        self.window = facts.windows[self.job]

    def of_model(self, model):
        """The panel for another model."""
        return See(self.facts, self.panel, {**self._chosen, "model": model})

    def series(self, target=0, at="end"):
        """[(labels, value)]; `at`: a moment, or a time."""
        if isinstance(at, str):
            at = self.facts.moments[at][self.job]
        return ask.instant(self.facts.prometheus, self.panel,
                           self.panel["targets"][target], self._chosen,
                           self.window, at)

    def value(self, target=0, at="end"):
        """The value of the only series."""
        found = self.series(target, at)
        assert len(found) == 1, found
        return found[0][1]

    def by(self, *labels, target=0, at="end"):
        """Label, or labels -> value. No two series may share them."""
        found = {}
        for names, value in self.series(target, at):
            key = tuple(names.get(label, "") for label in labels)
            key = key[0] if len(labels) == 1 else key
            assert key not in found, (key, names)
            found[key] = value
        return found

    def grown(self, *labels, target=0):
        """As by(), or value() without labels: a rate times the window."""
        if not labels:
            return self.value(target) * self.window.seconds
        return {key: value * self.window.seconds
                for key, value in self.by(*labels, target=target).items()}


def same(found, wanted, off=1e-6):
    """Numbers, or dicts of them, are equal but for a part `off`."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), (
            f"{sorted(found)} in place of {sorted(wanted)}")
        for key, value in wanted.items():
            _same(found[key], value, off, key)
    else:
        _same(found, wanted, off, "")


def _same(found, wanted, off, key):
    if isinstance(wanted, float) and math.isnan(wanted):
        assert math.isnan(found), f"{key}: {found} in place of NaN"
        return
    # `not <=` so that NaN is no match.
    assert not (abs(found - wanted) > off * max(1, abs(wanted))
                or math.isnan(found)), (
                    f"{key}: {found} in place of {wanted}")


def between(low, found, high):
    assert low <= found <= high, f"{found} is not in [{low}, {high}]"


def quantile(share, values, bounds):
    """What histogram_quantile must say of these values; NaN without any."""
    if not values:
        return math.nan
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect.bisect_left(bounds, value)] += 1
    rank, below = share * len(values), 0
    for bucket, count in enumerate(counts):
        if below + count >= rank and count:
            break
        below += count
    if bucket == len(bounds):
        return bounds[-1]
    low = bounds[bucket - 1] if bucket else 0
    return low + (bounds[bucket] - low) * (rank - below) / count
