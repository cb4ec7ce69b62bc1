"""What the dashboard of a model must show of smollm2 on the main server."""

from expected import between, expect, same
from expected_activations import (ALL, EXACT, by_layer, largest_drift, last,
                                  statistics)
from expected_service import (busy, is_cut, kv_bytes, kv_limit, rows, tokens,
                              used)

MODEL = "smollm2"


def passes(facts):
    """The least and the most: one for each prompt of the work (all are short),
    and one for each further token."""
    least = facts.one.calls["one", "GetResult", "OK"]  # of kept prompts
    lost = 0
    for line in facts.lines:
        if line["model"] == MODEL and "prefill_ms" in line:
            least += 1 + max(0, line["generated_tokens"] - 1)
            lost += is_cut(line)
    return least, least + 3 * lost


def of_server(see, target=0):
    (instance, found), = see.by("instance", target=target).items()
    assert instance == see.facts.main.instance
    return found


@expect("model", "Servers that have it ready", sum)
def _(see):
    same(see.value(), 1)


@expect("model", "Time to load", max)
def _(see):
    same(see.value(), see.facts.models[MODEL].load_ms / 1000, 0.002)


@expect("model", "Memory of the weights", sum)
def _(see):
    same(see.value(), see.facts.models[MODEL].host_bytes)


@expect("model", "All tokens", sum)
def _(see):
    same(see.grown(), sum(tokens(see.facts, MODEL)))


def check_pass_time(facts, found):
    low, high = passes(facts)
    between(0.85 * busy(facts) / high, found, 1.02 * busy(facts) / low)


@expect("model", "A pass takes")
def _(see):
    check_pass_time(see.facts, see.value())


@expect("model", "Passes that failed")
def _(see):
    same(see.value(), 0)


@expect("model", "Tokens", sum)
def _(see):
    prompt, generated = tokens(see.facts, MODEL)
    same(see.grown(target=0), prompt)
    same(see.grown(target=1), generated)


@expect("model", "Passes")
def _(see):
    low, high = passes(see.facts)
    between(low - 0.01, of_server(see) * see.window.seconds, high + 0.01)


@expect("model", "Rows of a pass")
def _(see):
    fewest, most = passes(see.facts)
    low, high = rows(see.facts, MODEL)
    between(low / most, see.value(), high / fewest)


@expect("model", "Duration of a pass")
def _(see):
    check_pass_time(see.facts, of_server(see))


@expect("model", "Rows per second of device time")
def _(see):
    low, high = rows(see.facts, MODEL)
    seconds = busy(see.facts)
    between(low / seconds / 1.02, of_server(see), high / seconds / 0.85)


@expect("model", "Share of the device")
def _(see):
    seconds = busy(see.facts)
    between(0.85 * seconds, of_server(see) * see.window.seconds,
            1.02 * seconds)


@expect("model", "KV cache", sum)
def _(see):
    low, high = kv_bytes(see.facts)
    between(low, see.value(0, "running"), high)
    same(see.value(0), 0)
    same(see.value(1), kv_limit())


@expect("model", "Weights and workspace")
def _(see):
    info = see.facts.models[MODEL]
    same(see.by("instance", "memory"), {
        (see.facts.main.instance, "host"): info.host_bytes,
        (see.facts.main.instance, "device"): info.device_bytes})
    assert used(see.facts, "ada")[0] > 0


@expect("model", "Layers of the last clean prompt")
def _(see):
    analysis = last(see.facts)
    for number, matrix in enumerate((("q", "after"), ("k", "after"),
                                     ("v", "none"))):
        def one(layer):
            return statistics(analysis, [matrix], layer=layer)[0]
        same(see.by("layer", target=2 * number),
             by_layer(lambda layer: one(layer).massive_count))
        same(see.by("layer", target=2 * number + 1),
             by_layer(lambda layer: one(layer).ratio))
    same(see.by("layer", target=6), by_layer(
        lambda layer: largest_drift(see.facts, analysis, ALL, [layer])),
         EXACT)


@expect("model", "Largest ratio, layer by layer", max)
def _(see):
    for at, analysis in see.facts.marks:
        same(see.by("layer", at=at), by_layer(lambda layer: max(
            one.ratio for one in statistics(analysis, layer=layer))))
