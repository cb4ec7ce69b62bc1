"""Tests what a server promises whatever its clients do, with real processes. A
test's name begins with the row of docs/reliability.md that it covers.

The tests print figures for that page; the clock fails only what hangs.
"""

import concurrent.futures
import hashlib
import json
import os
import random
import signal
import socket
import threading
import time
import unittest

import numpy
import safetensors.numpy

import processes
from processes import (MUCH, PATIENT, PATIENT_KEEPALIVE, PATIENT_LIMITS,
                       TINY_MODEL, Client, GatedServer, Server, metrics,
                       open_files, resident_bytes, wait_until)
from raw_grpc import (ACK, DATA, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, OK,
                      PING, Connection, SentAway, connect)
from server_case import ANALYZE, MIB, ServerCase, request

SOAK_SECONDS = int(os.environ.get("SOAK_SECONDS", "0"))
# Each round of measuring takes some 3 s.
R2_ROUNDS = max(3, SOAK_SECONDS // 3)
CHUNK = 256 * 1024  # Payload bytes of a Layer event, at most.
# This is more than a connection ever receives.
ALL = 1 << 30

# Raw values of all points, some 280 KiB an arm: a stalled reader stops it.
EVERYTHING = ("form: RAW stage: BEFORE_AND_AFTER points: [HOOK_Q, HOOK_K, "
              "HOOK_V, HOOK_ROT_Q, HOOK_ROT_K, HOOK_Z]")


def make_wide_model(folder):
    """Makes a model of few weights whose Q is 256 KiB for 128 tokens."""
    config = json.loads((TINY_MODEL / "config.json").read_text())
    config.update(hidden_size=32, num_attention_heads=16, head_dim=32,
                  num_key_value_heads=2, max_position_embeddings=1024,
                  num_hidden_layers=2)
    rng = numpy.random.default_rng(7)
    tensors = {}

    def add(name, *shape):
        tensors[name] = rng.normal(0, 0.1, shape).astype(numpy.float32)

    add("model.embed_tokens.weight", 97, 32)
    add("lm_head.weight", 97, 32)
    add("model.norm.weight", 32)
    for layer in range(2):
        of = f"model.layers.{layer}."
        for name, rows, columns in [("q", 512, 32), ("k", 64, 32),
                                    ("v", 64, 32), ("o", 32, 512)]:
            add(f"{of}self_attn.{name}_proj.weight", rows, columns)
        add(of + "mlp.gate_proj.weight", 53, 32)
        add(of + "mlp.up_proj.weight", 53, 32)
        add(of + "mlp.down_proj.weight", 32, 53)
        add(of + "input_layernorm.weight", 32)
        add(of + "post_attention_layernorm.weight", 32)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


class ReliabilityTest(ServerCase):

    def test_r1_a_thousand_idle_connections(self):
        server = self.start()
        self.serves(server)
        pid = server.process.pid
        before = resident_bytes(pid), open_files(pid)
        connections = [self.connection(server) for _ in range(1000)]
        for connection in connections:
            connection.read()  # The server's settings.
        extra = resident_bytes(pid) - before[0]
        self.assertGreaterEqual(open_files(pid) - before[1], 1000)
        print(f"R1: 1000 idle connections: {extra / MIB:.1f} MiB")
        self.assertLessEqual(extra, 32 * MIB)
        self.serves(server)

    def test_r1_256_live_streams(self):
        server = self.start()
        readers = self.stalled_readers(server, 256, request(250, EVERYTHING))
        self.assertEqual(self.live(metrics(server)), 256)
        for connection, stream in readers:
            connection.take(ALL, stream)
            answer = connection.finish(stream)
            self.assertIn(OK, answer.headers)
            self.assertGreater(len(answer.messages), 250_000)
        values = self.await_idle(server)
        handled = values["qkscope_rpc_handled_total"]
        self.assertEqual({labels: count for labels, count in handled.items()
                          if "Analyze\"" in labels and count},
                         {'{code="OK",method="Analyze"}': 256}, handled)

    def start_wide(self):
        """Starts a server for ada and bob, with a model of large results."""
        model = self.folder / "wide"
        model.mkdir()
        make_wide_model(model)
        return self.start(
            PATIENT + "".join(f"users {{alias: '{name}' token_sha256: "
                    f"'{hashlib.sha256(token.encode()).hexdigest()}'}}\n"
                    for name, token in [("ada", "of-ada"), ("bob", "of-bob")]),
            {"tiny": TINY_MODEL, "wide": model})

    def stalled_adas(self, server, count, tokens, layers):
        """Returns ada's stalled readers of Q results of this many layers."""
        return self.stalled_readers(
            server, count, request(tokens, "form: RAW points: HOOK_Q layers: "
                                   f"{list(range(layers))}", model="wide"),
            [(b"authorization", b"Bearer of-ada")])

    def stall(self, tokens, layers):
        """Returns the MiB that 256 such readers cost, and the gauge's MiB."""
        server = self.start_wide()

        def cost():
            values = self.await_device(server)
            return (resident_bytes(server.process.pid) / MIB,
                    values["qkscope_stream_buffered_bytes"][""] / MIB)

        readers = self.stalled_adas(server, 1, tokens, layers)  # Warms up.
        before = cost()
        readers += self.stalled_adas(server, 256, tokens, layers)
        self.serves(server, "of-bob")
        # The engine has finished all requests, and no reader was disconnected.
        after = cost()
        self.assertEqual(self.live(metrics(server)), 257)
        for connection, _ in readers:
            connection.close()
        self.await_idle(server)
        return after[0] - before[0], after[1] - before[1]

    def times_of_bob(self, server, count):
        """Returns the milliseconds of bob's small requests in sequence."""
        connection = self.connection(server)
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.take(ALL)
        message = request(4, "form: NORM_PER_TOKEN")
        times = []
        for _ in range(count):
            start = time.monotonic()
            stream = connection.start(
                ANALYZE, message, [(b"authorization", b"Bearer of-bob")])
            answer = connection.finish(stream)
            times.append(1000 * (time.monotonic() - start))
            self.assertTrue(answer.messages)
        connection.close()
        return times

    def test_r2_times_of_others(self):
        server = self.start_wide()
        self.times_of_bob(server, 500)  # Warms up.
        times = {0: [], 256: []}
        # The cases alternate, so that the machine's load affects both.
        for _ in range(R2_ROUNDS):
            for count, of in times.items():
                readers = self.stalled_adas(server, count, 128, 1)
                self.await_device(server)
                # Lets the activity of 256 new connections settle.
                time.sleep(0.3)
                of += self.times_of_bob(server, 1000)
                self.assertEqual(self.live(metrics(server)), count)
                for connection, _ in readers:
                    connection.close()
                self.await_idle(server)
        for count, of in times.items():
            half, most = numpy.percentile(of, [50, 99])
            print(f"R2: {len(of)} requests beside {count} stalled readers: "
                  f"p50 {half:.2f} ms, p99 {most:.2f} ms")

    def test_r2_stalled_readers_of_a_chunk(self):
        resident, _ = self.stall(tokens=128, layers=1)
        print(f"R2: 256 readers before one chunk: {resident:.0f} MiB")
        self.assertGreater(resident, 48)
        self.assertLessEqual(resident, 192)

    def test_r2_stalled_readers_of_more(self):
        resident, gauge = self.stall(tokens=256, layers=2)
        # The chunks that are being written come on top.
        written = 256 * CHUNK / MIB
        print(f"R2: 256 readers before four chunks: {resident:.0f} MiB, gauge "
              f"{gauge:.0f} MiB + {written:.0f} MiB of writes")
        self.assertGreaterEqual(gauge, 256 * 4 * CHUNK / MIB)
        self.assertLessEqual(abs(resident - gauge - written),
                             0.2 * (gauge + written))

    def test_r3_buffers_have_a_limit(self):
        with Server({"tiny": TINY_MODEL}) as idle:
            self.serves(idle)
            limit = (processes.status_bytes(idle.process.pid, "VmPeak")
                     + 256 * MIB)
        # The results for 64 readers would be some 600 MiB.
        server = self.start(
            PATIENT_KEEPALIVE + f"limits {{{PATIENT_LIMITS}"
            f"max_buffered_bytes: {32 * MIB}}}",
            wrap=lambda command: ["prlimit", f"--as={limit}", *command])
        message = request(250, EVERYTHING, arms=16)
        connections = []
        for _ in range(64):
            connection = self.connection(server)
            connections.append(connection)
            connection.start(ANALYZE, message)

        def waiting():
            """How many wait for room; None: some are still on their way."""
            values = metrics(server)
            started = values["qkscope_rpc_started_total"].get(
                '{method="Analyze"}', 0)
            if started < 64 or values["qkscope_running_requests"][""] > 0:
                return None
            return values["qkscope_queued_requests"][""]

        wait_until(lambda: (waiting() or 0) > 0, "requests that wait")
        first = waiting()
        reserved = metrics(server)["qkscope_stream_reserved_bytes"][""] / MIB
        print(f"R3: {first:.0f} of 64 wait, {reserved:.0f} MiB reserved")
        self.assertLess(first, 64)
        self.assertGreater(reserved, 0)
        self.assertLessEqual(reserved, 32)
        # Whoever reads, or leaves, makes room for the next.
        connections.pop(0).close()
        wait_until(lambda: (waiting() or 64) < first, "room")
        for connection in connections:
            connection.close()
        self.await_idle(server)
        self.serves(server)
        self.assertIsNone(server.process.poll())

    def test_r4_a_stopped_reader_is_let_go(self):
        server = self.start(
            PATIENT_KEEPALIVE + "limits {write_stall_timeout_ms: 1000}",
            server_class=GatedServer)
        server.shut()
        with Client(server, "analyze", "--model", "tiny", *MUCH) as stream:
            self.assertTrue(stream.read_until("accepted"))
            stream.stop()
            start = time.monotonic()
            server.open()  # The client receives nothing of what comes now.
            # The buffers must be free while the client is still stopped.
            values = self.await_metrics(server, "buffers", lambda values: (
                sum(values["qkscope_cancelled_total"].values()) == 1
                and values["qkscope_stream_buffered_bytes"][""] == 0
                and values["qkscope_stream_reserved_bytes"][""] == 0))
            self.assertEqual(
                values["qkscope_cancelled_total"]['{reason="stalled"}'], 1)
            print(f"R4: buffers free {time.monotonic() - start:.2f} s after "
                  "it stopped")
            ended = self.await_call(server, "DEADLINE_EXCEEDED")
            self.assertIn("the client read nothing for", ended["reason"])
            self.await_idle(server)
            print(f"R4: call over {time.monotonic() - start:.2f} s after")
            stream.process.send_signal(signal.SIGCONT)
            code, events, _ = stream.finish()
            self.assertNotEqual(code, 0)
            self.assertFalse(any("finished" in event for event in events))

    def leave_socket_full(self, server):
        """Starts a call whose flow control lets everything through: the
        connection's write does not end, and so a cancelled call does not end
        either."""
        connection = Connection(connect(server.address, 256 * 1024))
        self.addCleanup(connection.close)
        stream = connection.start(ANALYZE, request(250, EVERYTHING, arms=64))
        connection.take(ALL, stream)
        return connection, time.monotonic()

    def test_r4_a_reader_that_leaves_its_socket_full(self):
        server = self.start(
            PATIENT_KEEPALIVE + "limits {write_stall_timeout_ms: 1000}")
        connection, start = self.leave_socket_full(server)
        # This reader of the same user has a connection of its own.
        other = self.connection(server)
        stalled = other.start(ANALYZE, request(250, EVERYTHING, arms=64))
        other.await_data()
        ended = self.await_call(server, "DEADLINE_EXCEEDED")
        self.assertIn("the client read nothing for", ended["reason"])
        self.await_idle(server)
        print(f"R4: full socket: call over {time.monotonic() - start:.2f} s "
              "after its start")
        cut = [entry for entry in map(json.loads, list(server.log))
               if entry["event"] == "connection_cut"]
        self.assertEqual(len(cut), 1)
        connection.read_all()
        # The other reader's connection still works.
        other.take(ALL)
        other.finish(stalled)
        stream = other.start(ANALYZE, request(3, "form: NORM_OVER_TOKENS"))
        self.assertIn(b"tiny", other.finish(stream).messages)
        self.serves(server)

    def kill_some(self, server, seed, count, moment):
        """Kills `count` clients, each after `moment`."""
        rng = random.Random(seed)
        arms = [word for i in range(20)
                for word in ("--arm", f"random_k:1,seed={i}")]
        ids = ",".join(str(1 + i % 90) for i in range(200))
        for _ in range(count):
            with Client(server, "analyze", "--model", "tiny", "--token-ids",
                        ids, *arms, "--form", "raw", "--max-new-tokens", "20",
                        "--json") as client:
                moment(client, rng)
                client.process.kill()
                client.process.wait()

    def kill_many(self, server, moment):
        """Kills 50 clients, four at a time."""
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for killed in [pool.submit(self.kill_some, server, seed, count,
                                       moment)
                           for seed, count in enumerate([13, 13, 12, 12])]:
                killed.result()

    def test_r7_clients_killed_at_any_moment_leave_nothing(self):
        """The kills come at random: before, during or after the call."""
        server = self.start()
        start = time.monotonic()
        self.serves(server)
        within = max(0.2, 2 * (time.monotonic() - start))
        self.kill_many(
            server, lambda _, rng: time.sleep(rng.uniform(0, within)))
        start = time.monotonic()
        self.await_idle(server)
        print(f"R7: 50 kills, nothing left {time.monotonic() - start:.2f} s "
              "after the last")
        self.serves(server)

    def test_r7_clients_killed_during_their_calls_leave_nothing(self):
        # The device is held, so that no call ends before its kill.
        server = self.start(server_class=GatedServer)
        server.shut()

        def await_accepted(client, _):
            self.assertTrue(client.read_until("accepted"),
                            client.process.stderr.read)

        self.kill_many(server, await_accepted)
        start = time.monotonic()
        self.await_metrics(server, "the kills", lambda values: (
            sum(values["qkscope_cancelled_total"].values()) == 50))
        server.open()
        self.await_idle(server)
        print(f"R7: 50 kills during calls, nothing left "
              f"{time.monotonic() - start:.2f} s after the last")
        self.serves(server)

    def test_r7_a_stopped_client_does_not_answer_pings(self):
        server = self.start("keepalive_s: 2 keepalive_timeout_s: 1",
                            server_class=GatedServer)
        server.shut()
        with Client(server, "analyze", "--model", "tiny", *MUCH) as client:
            client.read_until("accepted")
            client.stop()
            start = time.monotonic()
            self.await_call(server, "CANCELLED")
            print(f"R7: stopped client noticed after "
                  f"{time.monotonic() - start:.2f} s")
            server.open()
            self.await_idle(server)
            client.process.kill()
        self.serves(server)

    def test_r7_a_client_that_leaves_its_socket_full_gets_no_ping(self):
        server = self.start("keepalive_s: 2 keepalive_timeout_s: 1")
        _, start = self.leave_socket_full(server)
        self.await_call(server, "CANCELLED")
        print(f"R7: full socket: noticed after {time.monotonic() - start:.2f} s")
        self.await_idle(server)
        self.serves(server)

    def test_r31_a_scrape_beside_bad_clients(self):
        server = self.start()
        where = server.metrics_address
        get = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
        post = b"POST /metrics HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n"

        def drip(connections, dripped, done):
            while not done.wait(0.5):
                for connection in connections:
                    try:
                        connection.send(b"a")
                    except OSError:
                        pass  # The server has ended it.
                dripped.set()

        for what, begin, dripping in (
                ("silent", b"", False), ("slow in its head", get + b"X: a",
                                         True),
                ("slow in its body", post, True),
                ("huge heads", get + b"X: " + b"a" * 500_000, False),
                ("huge URLs", b"GET /" + b"a" * 500_000, False),
                ("readers that never read", (get + b"\r\n") * 100, False)):
            connections = []
            for _ in range(200):
                connection = connect(where, receive_buffer=4096)
                self.addCleanup(connection.close)
                connection.setblocking(False)
                try:
                    connection.send(begin)
                except OSError:
                    pass
                connections.append(connection)
            dripped, done = threading.Event(), threading.Event()
            dripper = threading.Thread(target=drip,
                                       args=(connections, dripped, done))
            if dripping:
                dripper.start()
                self.assertTrue(dripped.wait(processes.PATIENCE_S))
            for _ in range(3):
                start = time.monotonic()
                self.assertIn("qkscope_rpc_started_total", metrics(server))
                print(f"R31: 200 connections, {what}: a scrape takes "
                      f"{1e3 * (time.monotonic() - start):.0f} ms")
                if what == "silent":
                    # It did not wait for them to end.
                    with self.assertRaises(BlockingIOError):
                        connections[-1].recv(1)
            done.set()
            if dripping:
                dripper.join()
            for connection in connections:
                connection.close()
        self.serves(server)

    def test_r9_a_flood_of_pings(self):
        server = self.start()
        other = self.connection(server)
        call = other.start(ANALYZE, request(250, EVERYTHING))
        other.await_data()
        flooder = self.connection(server)
        sent = 0
        with self.assertRaises(SentAway) as away:
            for sent in range(1, 51):  # As fast as the server answers.
                flooder.ping()
                while True:
                    kind, flags, _, _ = flooder.read()
                    if kind == PING and flags & ACK:
                        break
        print(f"R9: sent away, {sent} pings were sent")
        self.assertEqual(away.exception.code, ENHANCE_YOUR_CALM)
        other.take(ALL, call)
        self.assertIn(OK, other.finish(call).headers)
        self.serves(server)


if __name__ == "__main__":
    unittest.main()
