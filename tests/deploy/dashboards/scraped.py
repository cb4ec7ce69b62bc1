"""What metrics there are: names, types and labels, from scrapes."""

import collections
import re

Metric = collections.namedtuple("Metric", "type labels")
# Prometheus's own series of a target, and the labels that it adds to all.
OF_TARGETS = {"job", "instance"}
BUILT_IN = {"up": Metric("gauge", OF_TARGETS)}


def parse(*texts):
    """Returns name -> Metric of all series of the texts. Those of a histogram
    are three counters; the labels of all series of a name together count."""
    types = {}
    labels = collections.defaultdict(set)
    for line in "\n".join(texts).splitlines():
        if found := re.fullmatch(r"# TYPE (\w+) (\w+)", line):
            types[found[1]] = found[2]
        elif found := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            labels[found[1]].update(re.findall(r'(\w+)="', found[2] or ""))
    metrics = dict(BUILT_IN)
    for name, of_name in labels.items():
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        if types.get(family) == "histogram":
            kind = "bucket" if name.endswith("_bucket") else "counter"
        else:
            kind = types[name]
        metrics[name] = Metric(kind, of_name | OF_TARGETS)
    return metrics


def bounds(*texts):
    """Returns family -> the upper bounds of its buckets, without infinity."""
    found = collections.defaultdict(set)
    for family, bound in re.findall(
            r'^(\w+)_bucket\{.*le="([^"]+)"', "\n".join(texts), re.MULTILINE):
        if bound != "+Inf":
            found[family].add(float(bound))
    return {family: sorted(values) for family, values in found.items()}
