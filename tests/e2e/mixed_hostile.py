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
from mixed_requests import analysis_lines
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
            crowd.count(kind, "done")
        except StopIteration:
            crowd.count(kind, "whole")
        except grpc.RpcError as failure:
            crowd.failed(kind, failure)

    crowd.repeat(step, lambda: crowd.counted(kind, "done"))
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
        crowd.count(kind, "done")
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
                    crowd.count(kind, "done")
                    # In a long run the server gives up first.
                    crowd.pause(draw.uniform(0.5, 60))
                    break
                ended += bool(kind_of == HEADERS and flags & END_STREAM)
            else:
                crowd.count(kind, "refused")
        except ConnectionError:
            crowd.count(kind, "cut")
        connection.close()

    crowd.repeat(step, lambda: crowd.counted(kind, "done"))


def _events(body):
    """The messages in the bytes of a call's answer."""
    out = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        out.append(analysis.AnalyzeEvent.FromString(bytes(body[5:5 + size])))
        body = body[5 + size:]
    return out


class _Busy:
    """A connection that keeps many calls going: whenever one ends, another
    begins. The answers of some of them are compared."""

    CALLS, ALL, COMPARED = 48, 4000, 16

    def __init__(self, crowd, kind, user, draw):
        self.crowd, self.kind, self.draw = crowd, kind, draw
        self.bearer = crowd.bearer(user)
        self.messages = [request.SerializeToString()
                         for _, request in crowd.asked["analyze"]]
        self.connection = Connection(connect(crowd.address))
        self.begun = self.ended = 0
        self.watched = {}

    def begin(self):
        index = self.draw.randrange(len(self.messages))
        stream = self.connection.start(_ANALYZE, self.messages[index],
                                       self.bearer)
        if self.begun % self.COMPARED == 0:
            self.watched[stream] = index, bytearray()
        self.begun += 1

    def end(self, stream):
        self.ended += 1
        self.crowd.count(self.kind, "done")
        index, body = self.watched.pop(stream, (0, b""))
        events = _events(body)
        if events and events[-1].HasField("finished"):
            self.crowd.compare(self.kind, "analyze", index,
                               analysis_lines(events))
        if not self.crowd.over() and self.begun < self.ALL:
            self.begin()

    def work(self):
        for _ in range(self.CALLS):
            self.begin()
        while self.ended < self.begun:
            kind, flags, stream, payload = self.connection.read()
            if kind == DATA and payload:
                # A long answer needs more than the first window.
                self.connection.take(len(payload), stream)
                if stream in self.watched:
                    self.watched[stream][1].extend(payload)
            if kind == RST_STREAM or (kind in (DATA, HEADERS)
                                      and flags & END_STREAM):
                self.end(stream)


def asks_at_once(crowd, kind, user, number):
    draw = random.Random(number)

    def step(_):
        busy = _Busy(crowd, kind, user, draw)
        try:
            busy.work()
        except ConnectionError:
            # With so many calls it is cut while others flood (OpenCalls).
            crowd.count(kind, "cut")
        busy.connection.close()

    crowd.repeat(step, lambda: crowd.counted(kind))


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
        crowd.count(kind, "cut" if flood.cuts else "done")
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
            crowd.count(kind, "done")
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
        crowd.count(kind, "done", len(sockets))
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
                crowd.count(kind, "done")
        crowd.pause(0.3)

    crowd.repeat(step, lambda: crowd.counted(kind, "done"))


# (client, its arguments); each list has a process.
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
