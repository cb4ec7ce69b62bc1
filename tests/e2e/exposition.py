"""Reads what /metrics shows, and checks that its labels come from closed sets.

Written from Prometheus's description of the text format, and from nothing of
the server.
"""

import math
import re
import subprocess
import urllib.request

from processes import PATIENCE_S

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"(?:,|$)')
_SUFFIXES = ("_bucket", "_sum", "_count")


def fetch(server, path="/metrics", token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(
        f"http://{server.metrics_address}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return answer.read().decode()


def promtool(text):
    """Returns promtool's complaints; empty if there are none."""
    result = subprocess.run(["promtool", "check", "metrics"], input=text,
                            capture_output=True, encoding="utf-8", check=False)
    said = result.stdout + result.stderr
    return said or ("" if result.returncode == 0
                    else f"exit {result.returncode}")


class Scrape:
    """One answer. `samples`: (name, labels) -> value; labels are a frozenset
    of pairs."""

    def __init__(self, text):
        self.text = text
        self.help, self.type, self.samples = {}, {}, {}
        for line in text.splitlines():
            if line.startswith("# "):
                _, kind, name, rest = line.split(" ", 3)
                {"HELP": self.help, "TYPE": self.type}[kind][name] = rest
            elif line:
                self._add(line)

    def _add(self, line):
        match = _SAMPLE.fullmatch(line)
        if not match:
            raise ValueError(f"no sample: {line}")
        labels = _LABEL.findall(match[2] or "")
        if "".join(f'{k}="{v}",' for k, v in labels) != (
                (match[2] or "").rstrip(",") + ("," if match[2] else "")):
            raise ValueError(f"bad labels: {line}")
        key = (match[1], frozenset(labels))
        if key in self.samples:
            raise ValueError(f"twice: {line}")
        self.samples[key] = float(match[3])

    def family_of(self, name):
        """A histogram's samples have its name and a suffix."""
        for suffix in _SUFFIXES:
            base = name.removesuffix(suffix)
            if base != name and self.type.get(base) == "histogram":
                return base
        return name

    def value(self, sample, **labels):
        return self.samples[sample, frozenset(labels.items())]

    def by(self, sample, *names):
        """Sums over all labels but these: values of the labels (one, or a
        tuple) -> value."""
        out = {}
        for (name, labels), value in self.samples.items():
            if name == sample:
                labels = dict(labels)
                key = tuple(labels.get(label) for label in names)
                key = key[0] if len(names) == 1 else key
                out[key] = out.get(key, 0) + value
        return out

    def total(self, sample, **labels):
        """The sum of all samples with these labels."""
        return sum(value for (name, found), value in self.samples.items()
                   if name == sample and found >= labels.items())

    def label_values(self):
        """(family, label) -> values."""
        out = {}
        for name, labels in self.samples:
            for label, value in labels:
                out.setdefault((self.family_of(name), label),
                               set()).add(value)
        return out


def problems(scrape, closed, most_series):
    """Returns what is wrong with a scrape whose labels have the values in
    `closed` (label -> set of values), at most."""
    found = []
    if len(scrape.samples) > most_series:
        found.append(f"{len(scrape.samples)} series, limit {most_series}")
    for (family, label), values in sorted(scrape.label_values().items()):
        if label == "le":
            strange = {v for v in values if v != "+Inf"
                       and not math.isfinite(float(v))}
        else:
            strange = values - closed.get(label, set())
        if strange:
            found.append(f"{family}: label {label} has {len(strange)} values "
                         f"from outside its set, such as {min(strange)}")
    for name, _ in scrape.samples:
        family = scrape.family_of(name)
        if not scrape.help.get(family):
            found.append(f"{family} has no HELP")
        if family not in scrape.type:
            found.append(f"{family} has no TYPE")
    return sorted(set(found))
