"""What the dashboard of activations must show of smollm2 on the main server:
what Analyze streamed."""

import math

import numpy as np

from expected import between, expect, quantile, same
from load import LAYERS

KINDS = ("clean", "disrupted", "control")
SEEN = (("q", "after"), ("k", "after"), ("v", "none"))
BOTH = (("q", "after"), ("k", "after"), ("q", "before"), ("k", "before"))


def last(facts):
    return facts.marks[-1][1]


def statistics(analysis, matrices=SEEN, arm="clean", layer=None):
    """Those of the analysis that fit."""
    return [one for (tensor, rope, of, at), one in analysis.statistics.items()
            if (tensor, rope) in matrices and of == arm
            and layer in (None, at)]


def by_layer(value):
    """layer -> what `value` makes of it, where that is not None."""
    found = {str(layer): value(layer) for layer in range(LAYERS)}
    return {layer: one for layer, one in found.items() if one is not None}


def total(found):
    return sum(one.massive_count for one in found)


@expect("activations", "Prompts measured", sum)
def _(see):
    same(see.value(), sum(
        number for (model, _), number in see.facts.one.samples.items()
        if model == "smollm2"))


@expect("activations", "Age of what is shown", min)
def _(see):
    analysis = last(see.facts)
    between(see.window.end - analysis.ended - 0.1, see.value(),
            see.window.end - analysis.began + 1)


@expect("activations", "Massive entries")
def _(see):
    same(see.value(), total(statistics(last(see.facts))))


@expect("activations", "Largest ratio", max)
def _(see):
    same(see.value(), max(one.ratio for one in statistics(last(see.facts))))


@expect("activations", "Values that are not finite", sum)
def _(see):
    same(see.value(), 0)


def heatmap_of(tensor, rope, value):
    """At each mark, all layers are as they were streamed."""
    def check(see):
        assert len(see.facts.marks) == 3
        seen = []
        for at, analysis in see.facts.marks:
            seen.append(by_layer(lambda layer: value(statistics(
                analysis, [(tensor, rope)], layer=layer))))
            same(see.by("layer", at=at), seen[-1])
        # Prompts differ, so a cell that never changes would be found.
        assert any(one != seen[0] for one in seen), seen
    return check


def massive_of(found):
    return found[0].massive_count


for _tensor, _rope, _name in (("q", "after", "Q"), ("k", "after", "K")):
    expect("activations", f"Massive entries of {_name}, layer by layer", max)(
        heatmap_of(_tensor, _rope, massive_of))


@expect("activations", "Massive entries of V, layer by layer", max)
def _(see):
    for at, analysis in see.facts.marks:
        same(see.by("layer", at=at), by_layer(lambda layer: massive_of(
            statistics(analysis, [("v", "none")], layer=layer))))


for _tensor, _rope, _name in (("q", "after", "Q"), ("k", "after", "K"),
                              ("v", "none", "V")):
    expect("activations", f"Largest ratio of {_name}, by layer", max)(
        heatmap_of(_tensor, _rope, lambda found: found[0].ratio))


@expect("activations", "Massive entries, by kind of arm")
def _(see):
    wanted = {arm: total(statistics(last(see.facts), arm=arm))
              for arm in KINDS}
    same(see.by("arm"), wanted)
    assert wanted["clean"] != wanted["disrupted"], wanted


@expect("activations", "Largest ratio, by kind of arm", max)
def _(see):
    same(see.by("arm"), {
        arm: max(one.ratio for one in statistics(last(see.facts), arm=arm))
        for arm in KINDS})


@expect("activations", "Ratio over many prompts, by kind of arm")
def _(see):
    facts = see.facts
    analyses = [one for one in facts.one.analyses if one.model == "smollm2"]
    bounds = facts.bounds["qkscope_activation_matrix_max_mean_ratio"]
    for arm, found in see.by("arm").items():
        ratios = [one.ratio for analysis in analyses
                  for one in statistics(analysis, arm=arm)]
        if arm == "clean":
            # Prompts that were kept or continued are the same texts.
            of_text = {one.prompt: one for one in
                       facts.before_baseline.analyses + analyses
                       if one.model == "smollm2"}
            for prompt in facts.one.unseen:
                ratios += [one.ratio
                           for one in statistics(of_text[prompt])]
        same(found, quantile(0.5, ratios, bounds))
    assert see.by("arm").keys() == set(KINDS)


def removed_by(facts, arm):
    analysis = last(facts)
    return by_layer(lambda layer: (
        total(statistics(analysis, layer=layer))
        - total(statistics(analysis, arm=arm, layer=layer))))


@expect("activations", "Massive entries that a disruption removes, by layer")
def _(see):
    wanted = removed_by(see.facts, "disrupted")
    same(see.by("layer"), wanted)
    # An arm is measured before its rule acts: the first layer is equal.
    assert wanted["0"] == 0 and any(wanted.values()), wanted
    assert wanted != removed_by(see.facts, "control")


@expect("activations", "Massive entries that a control removes, by layer")
def _(see):
    same(see.by("layer"), removed_by(see.facts, "control"))


@expect("activations", "Massive entries before and after RoPE")
def _(see):
    same(see.by("tensor", "rope"), {
        (tensor.upper(), rope): total(statistics(
            last(see.facts), [(tensor, rope)])) for tensor, rope in BOTH})


@expect("activations", "Largest ratio before and after RoPE", max)
def _(see):
    same(see.by("tensor", "rope"), {
        (tensor.upper(), rope): max(one.ratio for one in statistics(
            last(see.facts), [(tensor, rope)])) for tensor, rope in BOTH})


def average(values):
    return sum(values) / len(values) if values else None


def shares(found, field):
    return [getattr(one, field) for one in found if one.HasField(field)]


@expect("activations", "Massive entries in slow dims")
def _(see):
    wanted = {}
    for tensor, rope in SEEN:
        share = average(shares(statistics(last(see.facts), [(tensor, rope)]),
                               "low_frequency_share"))
        if share is not None:
            wanted[tensor.upper()] = share
    assert {"Q", "K"} <= wanted.keys()
    same(see.by("tensor"), wanted)


def shares_by_layer(field):
    def check(see):
        for at, analysis in see.facts.marks:
            same(see.by("layer", at=at), by_layer(lambda layer: average(
                shares(statistics(analysis, layer=layer), field))))
    return check


expect("activations", "Massive entries in slow dims, layer by layer")(
    shares_by_layer("low_frequency_share"))
expect("activations", "Massive entries in one dim, layer by layer")(
    shares_by_layer("top_dim_share"))


def pattern(analysis, tensor, rope, layer):
    """Norms over the mean of their head, as a vector."""
    shape, data = analysis.norms[tensor, rope, "clean", layer]
    norms = np.frombuffer(data, "<f4").reshape(shape).astype(float)
    return (norms / norms.mean(axis=1, keepdims=True)).ravel()


def drift(facts, analysis, tensor, rope, layer):
    """1 - cosine of the pattern and the baseline's: the mean of two texts."""
    before = [one for one in facts.before_baseline.analyses
              if one.model == "smollm2"]
    assert len({one.prompt for one in before}) == len(before) == 2
    baseline = np.mean([pattern(one, tensor, rope, layer) for one in before],
                       axis=0)
    found = pattern(analysis, tensor, rope, layer)
    return 1 - found @ baseline / (np.linalg.norm(found)
                                   * np.linalg.norm(baseline))


def largest_drift(facts, analysis, matrices, layers):
    return max(drift(facts, analysis, tensor, rope, layer)
               for tensor, rope in matrices for layer in layers)


ALL = tuple(dict.fromkeys(SEEN + BOTH))
# 1 - cosine is a difference of floats near 1.
EXACT = 2e-6


@expect("activations", "Furthest from the baseline")
def _(see):
    of_qk = [one for one in ALL if one[0] != "v"]
    wanted = largest_drift(see.facts, last(see.facts), of_qk, range(LAYERS))
    assert wanted > 0.001, wanted
    same(see.value(), wanted, EXACT)


@expect("activations", "Drift from the baseline, layer by layer")
def _(see):
    for at, analysis in see.facts.marks:
        same(see.by("layer", at=at), by_layer(
            lambda layer: largest_drift(see.facts, analysis, ALL, [layer])),
             EXACT)


@expect("activations", "Drift from the baseline, by tensor")
def _(see):
    same(see.by("tensor"), {
        tensor.upper(): largest_drift(see.facts, last(see.facts),
                                      [(tensor, rope)], range(LAYERS))
        for tensor, rope in SEEN}, EXACT)


@expect("activations", "Prompts in the baseline")
def _(see):
    same(see.value(), sum(
        number for (model, _), number
        in see.facts.before_baseline.samples.items() if model == "smollm2"))


@expect("activations", "Values that are not finite, by layer", sum)
def _(see):
    same(see.by("layer"), by_layer(lambda layer: 0))
    # The model with a NaN, seen through the same panel.
    facts = see.facts
    analysis = [one for one in facts.one.analyses
                if one.model == "poisoned"][-1]
    wanted = {}
    for (_, _, _, layer), one in analysis.statistics.items():
        wanted[str(layer)] = wanted.get(str(layer), 0) + one.non_finite_count
    assert any(wanted.values()), wanted
    same(see.of_model("poisoned").by("layer"), wanted)


@expect("activations", "Prompts measured, by source", sum)
def _(see):
    wanted = {source: see.facts.one.samples["smollm2", source]
              for source in ("analyze", "score", "generate")}
    assert wanted["analyze"] and wanted["generate"]
    same(see.grown("source"), wanted)
    assert not math.isnan(sum(see.grown("source").values()))
