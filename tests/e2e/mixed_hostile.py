"""Clients of mixed_soak_test.py that ask for too much, break off, or are no
clients at all. What answers they do get are compared, too."""

import pathlib
import random
import select
import socket
import subprocess
import types
import urllib.request

import grpc

from floods_test import (Flood, HalfMessages, bombs, endless_headers,
                         open_calls, resets)
from mixed_checked import asks
from raw_grpc import DATA, END_STREAM, HEADERS, RST_STREAM, Connection, connect
from stubs import analysis

_ANALYZE = "/qkscope.v1.Analysis/Analyze"
# More than a client reads at once.
_LARGE = analysis.AnalyzeRequest(capture={"form": "RAW"})


def cancels(crowd, kind, user, number):
    """Breaks answers off at a random event."""
    client = crowd.user(user)
    draw = random.Random(number)

    def step(_):
        key = draw.choice(["analyze", "generate", "many"])
        method, request = draw.choice(crowd.asked[key])
        call = client.call(method, request)
        try:
            for _ in range(draw.randrange(6)):
                next(call)
            call.cancel()
            crowd.count(kind, "good")
        except StopIteration:
            crowd.count(kind, "whole")
        except grpc.RpcError as failure:
            crowd.failed(kind, failure)

    crowd.repeat(step, lambda: crowd.counted(kind))
    client.close()


def killed(crowd, kind, user, number):
    """A process that is killed at a random moment."""
    draw = random.Random(number)
    token = pathlib.Path(crowd.folder) / f"{user}.token"

    def step(_):
        request = draw.choice(crowd.asked["analyze"])[1]
        ids = ",".join(map(str, request.input.token_ids.ids or [1]))
        process = subprocess.Popen(
            [crowd.qkctl, "analyze", "--server", crowd.address, "--model", "m",
             "--token-file", token, "--token-ids", ids, "--max-new-tokens",
             "50"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        try:
            process.wait(draw.uniform(0, 0.3))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        crowd.count(kind, "good")
        crowd.pause(draw.uniform(0.3, 1))

    crowd.repeat(step)


def stops_reading(crowd, kind, user, number):
    """Reads the beginning of many large answers, and no more."""
    draw = random.Random(number)
    large = analysis.AnalyzeRequest()
    large.CopyFrom(_LARGE)
    large.model = "m"
    large.input.token_ids.ids.extend(draw.randrange(95) for _ in range(250))
    for i in range(24):
        large.arms.add(name=f"a{i}").disruptions.add().random_k.k = 1
    message = large.SerializeToString()

    def step(_):
        connection = Connection(connect(crowd.address))
        try:
            for _ in range(4):
                connection.start(_ANALYZE, message, crowd.bearer(user))
            ended = 0
            while ended < 4:
                kind_of, flags, _, _ = connection.read()
                if kind_of == DATA:
                    crowd.count(kind, "good")
                    # In a long run the server gives up first.
                    crowd.pause(draw.uniform(0.5, 60))
                    break
                ended += bool(kind_of == HEADERS and flags & END_STREAM)
            else:
                crowd.count(kind, "refused")
        except ConnectionError:
            crowd.count(kind, "cut")
        connection.close()

    crowd.repeat(step, lambda: crowd.counted(kind))


def asks_at_once(crowd, kind, user, number):
    """Keeps many calls going: whenever one ends, another begins."""
    draw = random.Random(number)
    messages = [request.SerializeToString()
                for _, request in crowd.asked["analyze"]]

    def step(_):
        connection = Connection(connect(crowd.address))
        begun = 0
        for _ in range(48):
            connection.start(_ANALYZE, draw.choice(messages),
                             crowd.bearer(user))
            begun += 1
        ended = 0
        try:
            while ended < begun:
                kind_of, flags, stream, payload = connection.read()
                if kind_of == DATA and payload:
                    connection.take(len(payload))
                    # A long answer needs more than the first window.
                    connection.take(len(payload), stream)
                if kind_of == RST_STREAM or (kind_of in (DATA, HEADERS)
                                             and flags & END_STREAM):
                    ended += 1
                    crowd.count(kind, "good")
                    if not crowd.over() and begun < 4000:
                        connection.start(_ANALYZE, draw.choice(messages),
                                         crowd.bearer(user))
                        begun += 1
        except ConnectionError:
            # With so many calls it is cut while others flood (OpenCalls).
            crowd.count(kind, "cut")
        connection.close()

    crowd.repeat(step)


def strangers(crowd, kind, number):
    """No token, or a wrong one."""
    asks(crowd, kind, ["nobody", "wrong"][number], "strangers")


# ------------------------------------------------------------- no credentials

def floods(crowd, kind, number):
    """HTTP/2 that no client sends."""
    target = types.SimpleNamespace(address=crowd.address)
    bursts = [bombs, resets, endless_headers, open_calls]

    def step(i):
        make = bursts[(i + number) % len(bursts)]
        flood = Flood(target)
        for burst in range(0, 300, 10):
            if not flood.send(make(burst)):
                break
        crowd.count(kind, "cut" if flood.cuts else "good")
        flood.close()
        crowd.pause(0.05)

    crowd.repeat(step)


def half_messages(crowd, kind):
    """Messages that lack their end."""
    def step(_):
        target = types.SimpleNamespace(address=crowd.address)
        sender = None
        try:
            sender = HalfMessages(target, 4)
            for _ in range(400):
                sender.step()
            crowd.count(kind, "good")
        except ConnectionError:
            crowd.count(kind, "cut")
        if sender is not None:
            sender.socket.close()
        crowd.pause(0.5)

    crowd.repeat(step)


def silent(crowd, kind, address):
    """Connections to both ports that never say a word."""
    host, port = getattr(crowd, address).rsplit(":", 1)

    def step(_):
        sockets = [socket.create_connection((host, int(port)))
                   for _ in range(40)]
        crowd.count(kind, "good", len(sockets))
        while sockets and not crowd.over():
            for ready in select.select(sockets, [], [], 0.2)[0]:
                try:
                    data = ready.recv(1 << 16)
                except ConnectionError:
                    data = b""
                if not data:
                    crowd.count(kind, "closed by the server")
                    sockets.remove(ready)
                    ready.close()
        for left in sockets:
            left.close()

    crowd.repeat(step)


def scrapes(crowd, kind):
    """A Prometheus."""
    def step(_):
        with urllib.request.urlopen(f"http://{crowd.metrics_address}/metrics",
                                    timeout=600) as answer:
            if b"qkscope_build_info" in answer.read():
                crowd.count(kind, "good")
        crowd.pause(0.3)

    crowd.repeat(step, lambda: crowd.counted(kind))


# (client, its arguments), in a process each.
CLIENTS = [
    *((cancels, "cancelled", "fickle", i) for i in range(2)),
    *((killed, "killed", "killed", i) for i in range(2)),
    *((stops_reading, "stops reading", "stalled", i) for i in range(2)),
    *((asks_at_once, "asks at once", "flood", i) for i in range(2)),
    *((asks, "refused messages", "refused", "refused", i * 3)
      for i in range(2)),
    *((strangers, "strangers", i) for i in range(2)),
]
FLOODS = [
    *((asks, "large texts", "typist", "large", i) for i in range(3)),
    *((floods, "floods", i) for i in range(2)),
    (half_messages, "half messages"),
    (silent, "silent", "address"),
    (silent, "silent, metrics", "metrics_address"),
    (scrapes, "scrapes"),
]
