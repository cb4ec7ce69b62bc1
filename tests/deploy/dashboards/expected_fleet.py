"""What the dashboard of the fleet must show of both servers."""

import datetime
import re
import subprocess

import stack
from expected import between, expect, same
from expected_service import FAULTS, busy, oldest_age


def both(facts, one, two):
    return {facts.main.instance: one, facts.second.instance: two}


def expiry(facts):
    """The end of the main server's certificate, in Unix time."""
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-in",
         facts.main.certificate], check=True, capture_output=True,
        encoding="utf-8").stdout
    found = datetime.datetime.strptime(
        text.strip(), "notAfter=%b %d %H:%M:%S %Y GMT")
    return found.replace(tzinfo=datetime.timezone.utc).timestamp()


def left(see):
    return expiry(see.facts) - see.window.end


@expect("fleet", "Servers that answer")
def _(see):
    same(see.value(), 1)
    same(see.value(at=see.facts.down_at), 0.5)


@expect("fleet", "Servers that take calls", sum)
def _(see):
    same(see.value(), 2)
    same(see.value(at=see.facts.down_at), 1)


@expect("fleet", "Servers that drain", sum)
def _(see):
    same(see.value(), 0)


@expect("fleet", "Versions")
def _(see):
    same(see.value(), 1)


@expect("fleet", "Starts", sum)
def _(see):
    same(see.value(), 1)


@expect("fleet", "The next certificate expires in")
def _(see):
    same(see.value(), left(see), 1e-7)
    between((stack.CERTIFICATE_DAYS - 1) * 86400, see.value(),
            stack.CERTIFICATE_DAYS * 86400)


@expect("fleet", "Servers")
def _(see):
    facts = see.facts
    same(see.by("instance", "replica", target=0), {
        (facts.main.instance, "one"): 1, (facts.second.instance, "two"): 1})
    same(see.by("instance", target=1), both(facts, 1, 1))
    for labels, _ in see.series(1):
        assert re.fullmatch(r"\d+\.\d+\.\d+", labels["version"]), labels
        assert labels["backend"] == "cpu", labels
    same(see.by("instance", target=2), both(facts, 1, 1))
    same(see.by("instance", target=3), both(facts, 0, 0))
    same(see.by("instance", target=4, at="held"), both(facts, 1, 0))
    same(see.by("instance", target=5, at="running"), both(facts, 1, 0))
    same(see.by("instance", target=6)[facts.main.instance], facts.resident,
         0.1)
    ages = see.by("instance", target=7)
    assert ages.keys() == facts.started.keys()
    for instance, age in ages.items():
        wanted = see.window.end - facts.started[instance]
        between(wanted - 1.5, age, wanted + 1.5)
    same(see.by("instance", target=8), {facts.main.instance: left(see)}, 1e-7)


@expect("fleet", "Scraped")
def _(see):
    same(see.by("instance"), both(see.facts, 1, 1))
    same(see.by("instance", at=see.facts.down_at), both(see.facts, 1, 0))


@expect("fleet", "Starts of servers")
def _(see):
    same(see.by("instance"), both(see.facts, 0, 1))


@expect("fleet", "Time until certificates expire")
def _(see):
    same(see.by("instance"), {see.facts.main.instance: left(see)}, 1e-7)


@expect("fleet", "Calls")
def _(see):
    found = see.grown("instance")
    wanted = both(see.facts, see.facts.one.total("one"),
                  see.facts.two.total("two"))
    assert found.keys() == wanted.keys()
    same(found[see.facts.main.instance], wanted[see.facts.main.instance])
    # The window begins and ends between two scrapes of the second server.
    second = see.facts.second.instance
    between(wanted[second] - 0.01, found[second],
            wanted[second] * (1 + 4 / see.window.seconds))


@expect("fleet", "Calls that failed")
def _(see):
    one = see.facts.one
    faults = sum(one.total(code=code) for code in FAULTS)
    same(see.by("instance"), both(see.facts, faults / one.total(), 0))


@expect("fleet", "Device busy")
def _(see):
    found = see.grown("instance")
    between(0.85 * busy(see.facts), found[see.facts.main.instance],
            1.02 * busy(see.facts))
    between(1e-5, found[see.facts.second.instance], 1)
    assert len(found) == 2


@expect("fleet", "Queue")
def _(see):
    same(see.by("instance", at="held"), both(see.facts, 1, 0))
    same(see.by("instance"), both(see.facts, 0, 0))


@expect("fleet", "The longest wait")
def _(see):
    found = see.by("instance", at="held")
    same(found.pop(see.facts.second.instance), 0)
    oldest_age(see, found[see.facts.main.instance])


@expect("fleet", "Requests that run")
def _(see):
    same(see.by("instance", at="running"), both(see.facts, 1, 0))
