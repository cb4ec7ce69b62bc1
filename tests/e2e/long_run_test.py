"""Tests a server over many calls, and when its device is lost, with real
processes. A test's name begins with the row of docs/reliability.md that it
covers.
"""

import os
import random
import statistics
import subprocess
import unittest

import processes
from processes import (PATIENCE_S, TINY_MODEL, GatedServer, metrics,
                       open_files, resident_bytes, threads)
from raw_grpc import DATA, END_STREAM, HEADERS, UNAVAILABLE
from server_case import ANALYZE, MIB, ServerCase, encoded, request

WATCH_HEALTH = "/grpc.health.v1.Health/Watch"
# A HealthCheckResponse, with gRPC's message prefix.
NOT_SERVING = b"\0\0\0\0\2\x08\2"
EX_SOFTWARE = 70
SOAK_SECONDS = int(os.environ.get("SOAK_SECONDS", "0"))
# The soak's rounds have some 650 calls each. Pools and caches fill up first.
WARM_UP_ROUNDS = 7
ROUNDS = max(12, SOAK_SECONDS)


class Sample:
    """What a server holds at a moment when it has no requests."""

    def __init__(self, calls, resident, files, tasks):
        self.calls = calls
        self.resident = resident
        self.files = files
        self.tasks = tasks


def slope(samples):
    """Returns resident bytes per call. A leak persists, so this is the smaller
    value of the two halves; each half's value is the median over all pairs of
    samples, because the allocator takes a larger piece now and then."""
    half = len(samples) // 2
    return min(statistics.median(
        (b.resident - a.resident) / (b.calls - a.calls)
        for i, a in enumerate(part) for b in part[i + 1:])
        for part in (samples[:half], samples[half:]))


def what_grows(samples):
    """Returns the names of what grows in the series."""
    out = []
    if slope(samples) * 10_000 >= MIB:
        out.append("resident bytes")
    third = len(samples) // 3
    for name in ("files", "tasks"):
        first, last = (statistics.median(getattr(s, name) for s in part)
                       for part in (samples[:third], samples[-third:]))
        if last > first + 2:
            out.append(name)
    return out


class LostDeviceTest(ServerCase):

    def test_r12_a_simulated_loss_of_the_device_ends_the_process(self):
        server = self.start(server_class=GatedServer)
        health = self.connection(server)
        health.start(WATCH_HEALTH)
        health.await_data()
        message = encoded("model: 'tiny' input {token_ids {ids: 3}} "
                          "generate {max_new_tokens: 240}")
        server.shut()
        calls = [connection for connection, _
                 in self.stalled_readers(server, 8, message)]
        self.assertEqual(self.live(metrics(server)), 8)
        server.lose_device()
        server.open()
        for call in calls:
            self.assertIn(UNAVAILABLE, call.read_all())
        self.assertIn(NOT_SERVING, health.read_all())
        self.assertEqual(server.wait(), EX_SOFTWARE)
        self.assertIn('"device_lost"', server.log_text())

    def test_r12_one_in_the_load_at_the_start_does_so(self):
        result = subprocess.run(
            [processes.BIN / "gated_server", "--lost", "--listen",
             "127.0.0.1:0", "--metrics-listen", "", "--model",
             f"tiny={TINY_MODEL}"], capture_output=True, encoding="utf-8",
            timeout=PATIENCE_S, check=False)
        # A bad configuration has another status: a restart may help.
        self.assertEqual(result.returncode, EX_SOFTWARE, result.stderr)
        self.assertIn('"device_lost"', result.stderr)


class SoakTest(ServerCase):

    def round(self, connection, rng, messages, count):
        """Makes this many calls: good ones, bad ones, cancelled ones."""
        for _ in range(count // 50):
            streams = set()
            for _ in range(50):
                stream = connection.start(ANALYZE, rng.choice(messages))
                if rng.random() < 0.2:
                    connection.cancel(stream)
                else:
                    streams.add(stream)
            while streams:
                kind, flags, stream, payload = connection.read()
                if kind == DATA and payload:
                    connection.take(len(payload))
                if flags & END_STREAM and kind in (DATA, HEADERS):
                    streams.discard(stream)

    def sample(self, server):
        values = self.await_idle(server)
        pid = server.process.pid
        return Sample(sum(values["qkscope_rpc_handled_total"].values()),
                      resident_bytes(pid), open_files(pid), threads(pid))

    def test_r15_nothing_grows(self):
        # A leak shows best in a single heap: with one heap per thread, pages
        # come and go by the MiB.
        server = self.start(
            environment={**os.environ, "MALLOC_ARENA_MAX": "1"})
        rng = random.Random(15)
        messages = [request(tokens, "form: NORM_PER_TOKEN", arms)
                    for tokens, arms in [(3, 1), (20, 2), (60, 1)]]
        messages += [request(3, "", model="nobodys"), b"\xff\xff"]
        samples = []
        for _ in range(WARM_UP_ROUNDS + ROUNDS):
            connection = self.connection(server)
            self.round(connection, rng, messages, 1000)
            connection.close()
            samples.append(self.sample(server))
        del samples[:WARM_UP_ROUNDS]
        print(f"R15: {slope(samples) * 10_000 / MIB:.2f} MiB in 10,000 calls, "
              f"of {samples[-1].calls - samples[0].calls:.0f}; files "
              f"{samples[0].files} to {samples[-1].files}, threads "
              f"{samples[0].tasks} to {samples[-1].tasks}")
        self.assertEqual(what_grows(samples), [])
        # The same samples, leaking 500 bytes a call and a thread a round.
        self.assertEqual(
            what_grows([Sample(s.calls, s.resident + 500 * s.calls, s.files,
                               s.tasks + i) for i, s in enumerate(samples)]),
            ["resident bytes", "tasks"])
        # The limit is sharp where nothing else changes.
        for leak, expected in [(100, []), (110, ["resident bytes"])]:
            self.assertEqual(what_grows(
                [Sample(i, leak * i, 10, 20) for i in range(12)]), expected)
        # The server does keep the descriptors of clients that stay connected.
        kept = []
        for _ in samples:
            self.connection(server).read()
            self.round(self.connection(server), rng, messages, 50)
            kept.append(self.sample(server))
        self.assertIn("files", what_grows(kept))


if __name__ == "__main__":
    unittest.main()
