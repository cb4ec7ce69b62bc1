"""What the dashboard of the service must show: all of the main server."""

import collections
import math

import stack
from expected import between, expect, mean, quantile, same
from load import LONG

FAULTS = ("UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
PASS_ROWS = 512  # the most of a pass here
# Codes whose series are there before their first call.
USUAL = ("CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED",
         "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE")


def methods(facts):
    return {labels["method"] for labels, _ in facts.prometheus.query(
        f'qkscope_rpc_started_total{{instance="{facts.main.instance}"}}',
        facts.moments["end"]["qkscope"])}


def durations(facts, method=None):
    return [line["total_ms"] / 1000 for line in facts.lines
            if method in (None, line["method"])]


def phase_seconds(facts, phase):
    """Of each call that ran and had the phase."""
    found = [line[phase + "_ms"] / 1000 for line in facts.ran]
    return found if phase == "queue" else [one for one in found if one > 0]


PHASES = ("queue", "prefill", "decode", "capture", "stream")


def sums(lines, key):
    return sum(line[key] for line in lines)


def is_cut(line):
    """A line of a call that was cancelled while it generated."""
    return line["method"] == "Generate" and line["code"] == "CANCELLED"


def tokens(facts, model=None):
    """Prompt and generated tokens. The server says what calls that were cut
    had; the client knows all else."""
    cut = [line for line in facts.lines if is_cut(line)]
    return tuple(
        sum(n for (_, of), n in known.items() if model in (None, of))
        + sums(cut, key)
        for known, key in ((facts.one.prompt, "prompt_tokens"),
                           (facts.one.generated, "generated_tokens")))


def rows(facts, model=None):
    """The least and the most rows of passes: a call that was cut has run a
    pass or two of which its client saw nothing."""
    cut = [line for line in facts.lines if is_cut(line)]
    known = sum(n for (_, of), n in facts.one.rows.items()
                if model in (None, of))
    known += sums(cut, "prompt_tokens") + sums(cut, "generated_tokens")
    return known - len(cut), known + 2 * len(cut)


def used(facts, alias):
    """What a user used in the window: device seconds and bytes."""
    before, after = facts.usage_before.get(alias), facts.usage[alias]
    def device(usage):
        return (usage.total_device_ms - usage.total_host_ms) / 1000
    return (device(after) - (device(before) if before else 0),
            after.total_streamed_bytes
            - (before.total_streamed_bytes if before else 0))


@expect("service", "Servers that take calls", mean)
def _(see):
    same(see.value(), 1)


@expect("service", "Calls", sum)
def _(see):
    same(see.grown(), see.facts.one.total())


@expect("service", "Calls that failed")
def _(see):
    faults = sum(see.facts.one.total(code=code) for code in FAULTS)
    assert faults > 0
    same(see.value(), faults / see.facts.one.total())


@expect("service", "99 % of the calls end within")
def _(see):
    same(see.value(), quantile(
        0.99, durations(see.facts),
        see.facts.bounds["qkscope_rpc_duration_seconds"]))


@expect("service", "Requests that wait", sum)
def _(see):
    waiting = [state for _, state in see.facts.requests_held].count("QUEUED")
    assert waiting == 1
    same(see.value(at="held"), waiting)
    same(see.value(), 0)


def oldest_age(see, found):
    now = see.facts.moments["held"][see.job]
    # The scrape's answer is made a moment after its time.
    between(now - see.facts.waited_until, found,
            now - see.facts.waited_from + 1)


@expect("service", "The longest wait", max)
def _(see):
    oldest_age(see, see.value(at="held"))
    same(see.value(), 0)


@expect("service", "Calls by method", sum)
def _(see):
    same(see.grown("method"), {
        method: see.facts.one.total(method=method)
        for method in methods(see.facts)})


@expect("service", "Calls that did not end with OK, by code", sum)
def _(see):
    wanted = collections.Counter({code: 0 for code in USUAL})
    for (_, _, code), number in see.facts.one.calls.items():
        if code != "OK":
            wanted[code] += number
    same(see.grown("code"), dict(wanted))


@expect("service", "Refused before they ran, by reason", sum)
def _(see):
    found = see.grown("reason")
    same(found, {reason: see.facts.one.refused[reason] for reason in found})
    assert found["user_budget"] > 0


@expect("service", "Ended before their work was done, by cause", sum)
def _(see):
    same(see.grown("reason"), {
        reason: see.facts.one.cancelled[reason]
        for reason in ("client", "deadline", "stalled", "shutdown")})


def durations_by_method(share):
    def check(see):
        same(see.by("method"), {
            method: quantile(share, durations(see.facts, method),
                             see.facts.bounds["qkscope_rpc_duration_seconds"])
            for method in methods(see.facts)})
    return check


expect("service", "Half of the calls end within")(durations_by_method(0.5))
expect("service", "99 % of the calls end within, by method")(
    durations_by_method(0.99))


@expect("service", "Tokens", sum)
def _(see):
    prompt, generated = tokens(see.facts)
    same(see.grown(target=0), prompt)
    same(see.grown(target=1), generated)


@expect("service", "Results sent")
def _(see):
    sent = sum(used(see.facts, alias)[1] for alias in see.facts.usage)
    same(see.grown("instance"), {see.facts.main.instance: sent})


@expect("service", "Results not read yet", sum)
def _(see):
    waiting, reserved, limit = (see.value(target, "held")
                                for target in range(3))
    size = see.facts.held_bytes
    # What the client's and the server's sockets hold is small.
    between(0.9 * size, waiting, 1.05 * size)
    between(waiting, reserved, 1.05 * size)
    same(limit, stack.BUFFERED_BYTES)
    same(see.value(0), 0)
    # What runs has room for its answer before there is any.
    assert see.value(1, "running") > see.value(0, "running")


@expect("service", "A request's time, by phase")
def _(see):
    wanted = {}
    for phase in PHASES:
        seconds = phase_seconds(see.facts, phase)
        assert seconds, phase
        wanted[phase] = sum(seconds) / len(seconds)
    # The log has six digits.
    same(see.by("phase"), wanted, 1e-5)


@expect("service", "95 % of the requests spend less, by phase")
def _(see):
    bounds = see.facts.bounds["qkscope_request_phase_duration_seconds"]
    same(see.by("phase"), {
        phase: quantile(0.95, phase_seconds(see.facts, phase), bounds)
        for phase in PHASES})


@expect("service", "Time in the queue", sum)
def _(see):
    seconds = phase_seconds(see.facts, "queue")
    same({float(bound): value for bound, value in see.by("le").items()}, {
        bound: sum(one <= bound for one in seconds) for bound in [
            *see.facts.bounds["qkscope_request_phase_duration_seconds"],
            math.inf]})


@expect("service", "From cancellation to free memory")
def _(see):
    # One call that ran was cancelled, and is gone within a step.
    between(0.0001, see.value(1), see.value(0))
    between(see.value(1), see.value(0), 1)
    assert see.value(1) < see.value(0)


def mean_rows(facts):
    """The least and the most rows of a pass, on average."""
    passes = next(value for _, value in facts.prometheus.query(
        f'sum(increase(qkscope_passes_total{{instance="{facts.main.instance}"'
        f'}}[{round(facts.windows["qkscope"].seconds * 1000)}ms]))',
        facts.windows["qkscope"].end))
    low, high = rows(facts)
    return low / passes, high / passes


@expect("service", "How full passes are")
def _(see):
    low, high = mean_rows(see.facts)
    (instance, found), = see.by("instance").items()
    assert instance == see.facts.main.instance
    between(low / PASS_ROWS - 1e-9, found, high / PASS_ROWS + 1e-9)


@expect("service", "Rows and sequences of a pass")
def _(see):
    low, high = mean_rows(see.facts)
    between(low - 1e-9, see.value(0), high + 1e-9)
    # Three arms in some passes, two pairs in others, else one sequence.
    between(1.05, see.value(1), 3)


@expect("service", "Queue", sum)
def _(see):
    states = [state for _, state in see.facts.requests_held]
    same(see.value(0, "held"), states.count("QUEUED"))
    states = [state for _, state in see.facts.requests_running]
    assert states.count("RUNNING") == 1
    same(see.value(1, "running"), states.count("RUNNING"))
    same(see.value(2), stack.QUEUE)


@expect("service", "Age of the oldest waiting request")
def _(see):
    (instance, age), = see.by("instance", at="held").items()
    assert instance == see.facts.main.instance
    oldest_age(see, age)


def busy(facts):
    """Seconds in passes: what users are charged for without comparisons, of
    which this work has none."""
    return sum(used(facts, alias)[0] for alias in facts.usage)


@expect("service", "Device busy")
def _(see):
    # Charges are of whole slices, with what is between two steps.
    (instance, found), = see.grown("instance").items()
    assert instance == see.facts.main.instance
    between(0.85 * busy(see.facts), found, 1.02 * busy(see.facts))
    between(0.01, found / see.window.seconds, 1)


@expect("service", "KV cache in use")
def _(see):
    found = see.by("model", at="running")
    low, high = kv_bytes(see.facts)
    between(low / kv_limit(), found.pop("smollm2"), high / kv_limit())
    same(found, {"tiny": 0, "poisoned": 0})
    same(see.by("model"), {"smollm2": 0, "tiny": 0, "poisoned": 0})


KV_PAGE = 64  # tokens, at most
KV_TOKEN = 30 * 2 * 3 * 64 * 4  # bytes: layers, K and V, heads, dims, float


def kv_limit():
    """Whole pages of what the configuration allows."""
    page = KV_PAGE * KV_TOKEN
    return stack.KV_BYTES // page * page


def kv_bytes(facts):
    """What the running text holds, at least and at most: room for all of it,
    in whole pages."""
    line = next(line for line in facts.lines if is_cut(line))
    room = line["prompt_tokens"] + LONG
    return room * KV_TOKEN, (room + KV_PAGE) * KV_TOKEN


@expect("service", "Memory of the process")
def _(see):
    same(see.by("instance"), {see.facts.main.instance: see.facts.resident},
         0.1)


@expect("service", "Processor")
def _(see):
    (_, found), = see.grown("instance").items()
    between(see.facts.cpu * 0.9 - 0.5, found, see.facts.cpu * 1.1 + 0.5)


@expect("service", "Descriptors in use")
def _(see):
    limit = see.facts.prometheus.query(
        f'process_max_fds{{instance="{see.facts.main.instance}"}}',
        see.window.end)[0][1]
    # A scrape has a connection of its own.
    (_, found), = see.by("instance").items()
    between(see.facts.open_files - 5, found * limit, see.facts.open_files + 5)


@expect("service", "Kept results")
def _(see):
    usage = see.facts.usage["ada"]
    assert usage.kept_results > 0
    same(see.value(0), usage.kept_results / stack.KEPT_RESULTS)
    same(see.value(1), usage.kept_bytes / stack.KEPT_BYTES)


@expect("service", "Connections")
def _(see):
    same(see.by("instance"), {see.facts.main.instance: 1})


@expect("service", "What should not happen")
def _(see):
    broken = sum(
        one.non_finite_count for analysis in see.facts.one.analyses
        if analysis.model == "poisoned"
        for one in analysis.statistics.values())
    assert broken > 0
    same(see.grown(target=1), broken)
    for target in (0, 2, 3, 4):
        same(see.value(target), 0)


def by_user(facts, number):
    """alias -> device seconds (0) or bytes (1), of those who have series."""
    return {alias: used(facts, alias)[number] for alias in facts.usage}


def with_others(found, wanted, off=1e-6):
    same(found.pop("other"), 0)
    same(found, wanted, off)


@expect("service", "Busiest users", sum)
def _(see):
    with_others(see.by("user"), by_user(see.facts, 0), 1e-3)
    assert see.by("user")["ada"] > 0.05


@expect("service", "Device time by user", sum)
def _(see):
    with_others(see.grown("user"), by_user(see.facts, 0), 1e-3)


def budgets(facts):
    out = {}
    for alias in ("cy", "eve"):
        usage = facts.usage[alias]
        out[alias] = usage.streamed_bytes / usage.bytes_budget
    assert out["cy"] > 0.01
    return out


@expect("service", "Budgets")
def _(see):
    same(see.by("user"), budgets(see.facts))


@expect("service", "Users")
def _(see):
    facts = see.facts
    with_others(see.by("user", target=0), dict(facts.one.users))
    with_others(see.by("user", target=1), by_user(facts, 0), 1e-3)
    with_others(see.by("user", target=2), by_user(facts, 1))
    flying = collections.Counter(alias for alias, _ in facts.requests_held)
    with_others(see.by("user", target=3, at="held"),
                {alias: flying[alias] for alias in stack.USERS})
    memory = see.by("user", target=4, at="running")
    between(kv_bytes(facts)[0], memory["bob"], 1.5 * kv_bytes(facts)[1])
    same({alias: memory[alias] for alias in ("ada", "cy", "other")},
         {"ada": 0, "cy": 0, "other": 0})
    same(see.by("user", target=5), budgets(facts))
