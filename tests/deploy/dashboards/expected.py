"""How expectations are written: what a panel must show after the known work.

An expectation is a function of a `See`, which raises AssertionError. A panel
without one fails the test. Those of the dashboards are in expected_*.py.
"""

import bisect
import math

import ask

EXPECTED = {}
# Panel -> how it shows two servers: the sum of what it shows of each, ...
TOGETHER = {}


def expect(dashboard, title, together=None):
    """Makes a function the expectation of a panel. `together`: sum, max, min or
    mean, if the values of servers are combined so."""
    def keep(check):
        assert (dashboard, title) not in EXPECTED, title
        EXPECTED[dashboard, title] = check
        if together:
            TOGETHER[dashboard, title] = together
        return check
    return keep


def mean(values):
    return sum(values) / len(values)


def check_together(how, number, everywhere, places):
    """`everywhere`: a See of all servers; `places`: one of each."""
    def values(see):
        return {tuple(sorted(labels.items())): value
                for labels, value in see.series(number)}

    parts = [values(see) for see in places]
    assert all(parts), f"a server shows nothing of query {number}"
    keys = set().union(*parts)
    same(values(everywhere), {
        key: how([part[key] for part in parts if key in part])
        for key in keys}, 1e-9)


class See:
    """A panel's answers, and the facts to hold them against. `wrong`: a query
    whose answers are made wrong, which an expectation must notice."""

    def __init__(self, facts, panel, chosen, wrong=None):
        self.facts, self.panel, self._chosen = facts, panel, chosen
        self._wrong = wrong
        self.job = ask.job_of(panel)
        self.window = facts.windows[self.job]

    def of_model(self, model):
        """The panel for another model."""
        return See(self.facts, self.panel, {**self._chosen, "model": model},
                   self._wrong)

    def series(self, target=0, at="end"):
        """[(labels, value)]; `at`: a moment, or a time."""
        if isinstance(at, str):
            at = self.facts.moments[at][self.job]
        expr = self.panel["targets"][target]["expr"]
        if target == self._wrong:
            expr = f"({expr}) * 3 + 7"
        return ask.instant(self.facts.prometheus, expr, self._chosen,
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
