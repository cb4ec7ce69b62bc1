"""The dashboard of activations: where the massive values of Q, K and V are, and
what disruptions, RoPE and time do to them."""

from panels import bars, heatmap, last, lines, query, stat, variables

TITLE = "qkscope: activations"
TEXT = ("Massive values of Q, K and V, layer by layer: how many, how large, "
        "what disruptions and RoPE do to them, and how far they are from the "
        "baseline. Measured on the server, over the prompts of analyses and, "
        "with activation_sampling, of Score and Generate.")
VARIABLES = variables(["qkscope_activation_samples_total"],
                      "qkscope_activation_samples_total", layers=True)

# Prometheus scrapes activations every 30 s.
EVERY = "30s"
MASSIVE = "qkscope_activation_massive_entries"
RATIO = "qkscope_activation_max_mean_ratio"
LOW = "qkscope_activation_low_frequency_ratio"
TOP = "qkscope_activation_top_dim_ratio"
DRIFT = "qkscope_activation_drift_ratio"
# What attention sees: Q and K after RoPE, and V, which has none.
SEEN = 'rope!="before"'
CLEAN = f'{SEEN}, arm="clean"'
TENSORS = (("q", "after", "Q"), ("k", "after", "K"), ("v", "none", "V"))
UPPER = "label_replace({}, \"tensor\", \"{}\", \"tensor\", \"{}\")"


def _total(matchers, by=""):
    """Massive entries of the last prompts, summed over layers and tensors; of
    several servers the largest."""
    each = f"max by (arm, layer, tensor, rope) ({MASSIVE}{{{matchers}}})"
    return f"sum{by and f' by ({by})'} ({each})"


def _tensors(expr):
    """The expression with tensors named Q, K and V."""
    for low, _, high in TENSORS:
        expr = UPPER.format(expr, high, low)
    return expr


def _now():
    return [
        stat("Prompts measured",
             "Prompts of the shown time whose activations were measured. 0: "
             "nobody analyses this model, and activation_sampling is 0.",
             "short",
             last("sum(increase(qkscope_activation_samples_total{@model}"
                  "[$__range]))"), graph=False, decimals=0),
        stat("Age of what is shown",
             "Time since the model's last matrix was measured.", "s",
             query("min(qkscope_activation_age_seconds{@model})"),
             alerts=["QkscopeActivationsNotScraped"]),
        stat("Massive entries",
             "In the last clean prompt, over the chosen layers and tensors: "
             "entries (head, dim) above 5 times the mean of their head.",
             "short", query(_total(f"@layers, {CLEAN}"))),
        stat("Largest ratio",
             "In the last clean prompt: the largest entry as a multiple of "
             "its head's mean.", "short",
             query(f"max({RATIO}{{@layers, {CLEAN}}})"), decimals=1),
        stat("Furthest from the baseline",
             "The largest drift of Q and K over the chosen layers: 0 is the "
             "same pattern as in the baseline, 1 has nothing in common with "
             "it. Without a baseline there is none: qkctl baseline save.",
             "short",
             query(f"max({DRIFT}{{@model, layer=~\"$layer\", "
                   'tensor=~"q|k"})'), nothing="no baseline",
             steps=[(0.08, "orange"), (0.15, "red")], decimals=3,
             alerts=["QkscopePatternChanged"]),
        stat("Values that are not finite",
             "NaN and infinite entries in the last prompt, over all arms. "
             "With a single one, no number that depends on it is a result.",
             "short",
             query("sum(qkscope_activation_non_finite_values{@layers})"),
             steps=[(1, "red")], alerts=["QkscopeNonFiniteActivations"]),
    ]


def _layers():
    out = []
    for tensor, rope, name in TENSORS:
        out.append(heatmap(
            f"Massive entries of {name}, layer by layer",
            f"Rows are layers, the first at the bottom; a cell is the number "
            f"of massive entries of {name} in the last clean prompt. "
            + ("Massive values stand in few dims of Q and K, the same from "
               "prompt to prompt: bands that stay." if name != "V" else
               "V has few or none: a bright V is unusual."), "short",
            query(f"max by (layer) ({MASSIVE}{{@model, layer=~\"$layer\", "
                  f"tensor=\"{tensor}\", rope=\"{rope}\", arm=\"clean\"}})",
                  "{{layer}}"), interval=EVERY))
    for tensor, rope, name in TENSORS:
        out.append(bars(
            f"Largest ratio of {name}, by layer",
            f"The largest entry of {name} of each layer as a multiple of its "
            f"head's mean, in the last clean prompt. Above 5 it is massive.",
            "short",
            last(f"max by (layer) ({RATIO}{{@model, layer=~\"$layer\", "
                 f"tensor=\"{tensor}\", rope=\"{rope}\", arm=\"clean\"}})",
                 "{{layer}}"), upright=True, decimals=1,
            steps=[(None, "blue"), (5, "orange")], size=(8, 7)))
    return out


def _arms():
    def over_prompts(share, metric):
        return (f"histogram_quantile({share}, sum by (le, arm) (rate({metric}"
                f"_bucket{{@model, tensor=~\"$tensor\", {SEEN}}}"
                "[$__rate_interval])))")

    kinds = ("clean", "disrupted", "control")
    return [
        lines("Massive entries, by kind of arm",
              "Over the chosen layers and tensors, in the last prompt of each "
              "kind. An arm is measured before its own rule acts in a layer: "
              "layer 0 is the same in all, and later layers show what the "
              "rules of the layers before them did.", "short",
              query(_total(f"@layers, {SEEN}", "arm"), "{{arm}}"),
              coloured=kinds, interval=EVERY),
        lines("Largest ratio, by kind of arm",
              "The largest entry as a multiple of its head's mean. A "
              "disruption that moves this curve far from clean's while the "
              "control stays with it has hit what the later layers build on.",
              "short",
              query(f"max by (arm) ({RATIO}{{@layers, {SEEN}}})", "{{arm}}"),
              coloured=kinds, interval=EVERY),
        lines("Ratio over many prompts, by kind of arm",
              "The median, over all layers and prompts of the moment, of a "
              "matrix's largest ratio; as exact as the histogram's buckets.",
              "short",
              query(over_prompts(
                  0.5, "qkscope_activation_matrix_max_mean_ratio"), "{{arm}}"),
              coloured=kinds, interval=EVERY),
        bars("Massive entries that a disruption removes, by layer",
             "For each layer, clean's massive entries less those of the last "
             "disrupted prompt, over the chosen tensors. Below 0, the "
             "disruption made more of them.", "short",
             last(_total(f"@layers, {CLEAN}", "layer") + " - "
                  + _total(f'@layers, {SEEN}, arm="disrupted"', "layer"),
                  "{{layer}}"), upright=True, low=None,
             size=(12, 7)),
        bars("Massive entries that a control removes, by layer",
             "For each layer, clean's massive entries less those of the last "
             "control. If this looks like the panel beside it, the "
             "disruption's effect is not about massive values.", "short",
             last(_total(f"@layers, {CLEAN}", "layer") + " - "
                  + _total(f'@layers, {SEEN}, arm="control"', "layer"),
                  "{{layer}}"), upright=True, low=None,
             size=(12, 7)),
    ]


def _rope():
    both = 'rope=~"before|after", arm="clean"'
    return [
        lines("Massive entries before and after RoPE",
              "In Q and K of the last clean prompt that captured both. RoPE "
              "turns pairs of dims, and norms over tokens hardly change where "
              "it turns slowly.", "short",
              query(_tensors(_total(f"@layers, {both}", "tensor, rope")),
                    "{{tensor}} {{rope}}"),
              interval=EVERY),
        lines("Largest ratio before and after RoPE",
              "Far less after than before: the massive dims are among those "
              "that RoPE turns fast, where it spreads them over their pair.",
              "short",
              query(_tensors(f"max by (tensor, rope) ({RATIO}{{@layers, "
                             f"{both}}})"), "{{tensor}} {{rope}}"),
              interval=EVERY),
        lines("Massive entries in slow dims",
              "Share of the massive entries whose RoPE frequency is in the "
              "lower half, the mean over layers that have any. In the paper's "
              "models it is near 1: RoPE is why massive values exist.",
              "percentunit",
              query(_tensors(f"avg by (tensor) ({LOW}{{@layers, {CLEAN}}})"),
                    "{{tensor}}"), top=1, coloured=("Q", "K"), interval=EVERY),
        heatmap("Massive entries in slow dims, layer by layer",
                "The same share for each layer; layers without massive "
                "entries stay empty.", "percentunit",
                query(f"avg by (layer) ({LOW}{{@layers, {CLEAN}}})",
                      "{{layer}}"), high=1, size=(12, 9), interval=EVERY,
                scheme="Viridis"),
        heatmap("Massive entries in one dim, layer by layer",
                "Share of a layer's massive entries that lie in the dim that "
                "has most of them. Near 1: all heads use the same dim.",
                "percentunit",
                query(f"avg by (layer) ({TOP}{{@layers, {CLEAN}}})",
                      "{{layer}}"), high=1, size=(12, 9), interval=EVERY,
                scheme="Viridis"),
    ]


def _drift():
    return [
        heatmap("Drift from the baseline, layer by layer",
                "1 - cosine between the pattern of the last clean prompt and "
                "the baseline's, the largest over the chosen tensors: 0 is "
                "the same, 1 has nothing in common.", "short",
                query(f"max by (layer) ({DRIFT}{{@layers}})", "{{layer}}"),
                size=(12, 10), interval=EVERY, scheme="Magma"),
        lines("Drift from the baseline, by tensor",
              "The largest over the chosen layers. A single odd prompt moves "
              "it for a moment, and V more than Q and K. A curve of Q or K "
              "that stays up is another model, another tokenizer or a broken "
              "weight.", "short",
              query(_tensors(f"max by (tensor) ({DRIFT}{{@layers, {SEEN}}})"),
                    "{{tensor}}"), coloured=("Q", "K", "V"), size=(8, 10),
              steps=[(0.15, "red")], alerts=["QkscopePatternChanged"],
              interval=EVERY),
        stat("Prompts in the baseline",
             "How many prompts the model's baseline holds. A baseline of few "
             "prompts drifts with the subject: save one of some dozen.",
             "short", query("max(qkscope_activation_baseline_prompts{@model})"),
             nothing="no baseline", steps=[(None, "orange"), (10, "green")],
             size=(4, 10), graph=False),
        bars("Values that are not finite, by layer",
             "NaN and infinite entries of the last prompt, over all arms. The "
             "first layer that has any is where they begin.", "short",
             last("sum by (layer) (qkscope_activation_non_finite_values"
                  "{@layers})", "{{layer}}"), size=(12, 8), upright=True,
             steps=[(1, "red")], alerts=["QkscopeNonFiniteActivations"]),
        lines("Prompts measured, by source",
              "Per second: prompts of analyses, and those of Score and "
              "Generate that activation_sampling took.", "cps",
              query("sum by (source) (rate(qkscope_activation_samples_total"
                    "{@model}[$__rate_interval]))", "{{source}}"),
              size=(12, 8), stacked=True, interval=EVERY),
    ]


def rows():
    return [("Now", _now()), ("Layer by layer", _layers()),
            ("Clean, disrupted, control", _arms()),
            ("Before and after RoPE", _rope()),
            ("Baseline and health", _drift())]
