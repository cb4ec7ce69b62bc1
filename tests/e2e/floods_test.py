"""Tests that connections without credentials cannot fill the memory: floods of
HTTP/2 frames against qkscoped, and, as a control, against the same program
without its mends of gRPC (unguarded_server)."""

import gzip
import select
import ssl
import struct
import time
import unittest

from certificates import (Authority, client_context, client_flags,
                          tls_connect)
from processes import (PATIENCE_S, PATIENT, Server, metrics, open_files,
                       status_bytes, wait_until)
from raw_grpc import (ACK, CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS,
                      PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
                      call_headers, connect, frame, string)
from server_case import MIB, ServerCase

CONTINUATION = 9
INFO = "/qkscope.v1.Analysis/GetServerInfo"
CALL = call_headers(INFO)
# What floods may cost the server, whoever sends them and from how many
# connections; the control is beyond it.
BOUND = 256 * MIB


class UnguardedServer(Server):
    PROGRAM = "unguarded_server"


class Flood:
    """Connections that never acknowledge the server's settings."""

    def __init__(self, server, connector=connect):
        self.server = server
        self.connector = connector
        self.connection = None
        self.cuts = 0

    def send(self, burst):
        """Sends the burst on the flood's connection, a new one if the server
        has cut the last one. False: the server has cut it."""
        if self.connection is None:
            self.connection = self.connector(self.server.address)
            self.connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        try:
            self.connection.sendall(burst)
            # What has come is thrown away.
            while select.select([self.connection], [], [], 0)[0]:
                if not self.connection.recv(1 << 20):
                    raise ConnectionError
        except (ConnectionError, ssl.SSLError):
            self.cuts += 1
            self.close()
        return self.connection is not None

    def await_cut(self):
        """Waits until the server cuts what it has not cut yet."""
        if self.connection is None:
            return
        try:
            while self.connection.recv(1 << 20):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        self.cuts += 1
        self.close()

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def opened(stream, headers=b""):
    return frame(HEADERS, END_HEADERS, stream, CALL + headers)


# A header of 4,000 bytes goes into the table; each of the references that
# follow is one byte.
ENTRY = b"\x40" + string(b"x") + string(b"v" * 4000)
# The same with an empty value: its size counts as 33 bytes.
SMALL_ENTRY = b"\x40" + string(b"x") + string(b"")


def bombs(number):
    """Calls whose headers unpack to 12 MB each."""
    return b"".join(opened(1 + 2 * i, ENTRY + b"\xbe" * 3000)
                    for i in range(number, number + 10))


def endless_headers(number):
    """The headers of one call, in parts that are each within the limit."""
    first = b"" if number else frame(HEADERS, 0, 1, CALL + SMALL_ENTRY)
    return first + frame(CONTINUATION, 0, 1, b"\xbe" * 400) * 10


def resets(number):
    """Calls that are reset at once."""
    return b"".join(
        opened(1 + 2 * i) + frame(RST_STREAM, 0, 1 + 2 * i,
                                  struct.pack(">I", CANCEL))
        for i in range(number, number + 10))


def open_calls(number):
    """Calls whose message never comes."""
    return b"".join(opened(1 + 2 * i) for i in range(number, number + 10))


class HalfMessages:
    """A connection with calls whose messages lack their last byte. It sends
    what the server's windows allow."""

    SIZE = 4 * MIB - 5

    def __init__(self, server, calls):
        self.socket = connect(server.address)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        self.initial = 65535
        self.window = {0: 65535}
        self.left = {1 + 2 * i: self.SIZE - 1 for i in range(calls)}
        self.buffer = b""
        self.sent = 0
        for stream in self.left:
            self.window[stream] = self.initial
            self.socket.sendall(opened(stream))
            self._data(stream, b"\0" + struct.pack(">I", self.SIZE))

    def _data(self, stream, payload):
        self.socket.sendall(frame(DATA, 0, stream, payload))
        self.window[0] -= len(payload)
        self.window[stream] -= len(payload)
        self.sent += len(payload)

    def _read(self):
        while select.select([self.socket], [], [], 0)[0]:
            part = self.socket.recv(1 << 20)
            if not part:
                raise ConnectionError("cut")
            self.buffer += part
        while len(self.buffer) >= 9:
            size = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + size:
                return
            kind, flags = self.buffer[3:5]
            stream = int.from_bytes(self.buffer[5:9], "big")
            payload, self.buffer = (self.buffer[9:9 + size],
                                    self.buffer[9 + size:])
            if kind == WINDOW_UPDATE:
                self.window[stream] = (self.window.get(stream, 0)
                                       + int.from_bytes(payload, "big"))
            elif kind == SETTINGS and not flags & ACK:
                self._settings(payload)

    def _settings(self, payload):
        for at in range(0, len(payload), 6):
            key, value = struct.unpack(">HI", payload[at:at + 6])
            if key == 4:
                for stream in self.left:
                    self.window[stream] += value - self.initial
                self.initial = value
        self.socket.sendall(frame(SETTINGS, ACK, 0, b""))

    def step(self):
        """Sends some more. ConnectionError: the server has cut it."""
        self._read()
        for stream, left in self.left.items():
            size = min(16384, left, self.window[stream], self.window[0])
            if size > 0:
                self._data(stream, b"z" * size)
                self.left[stream] -= size


class FloodsTest(ServerCase):

    def new_flood(self, server):
        flood = Flood(server)
        self.addCleanup(flood.close)
        return flood

    def peak(self, server):
        return status_bytes(server.process.pid, "VmHWM")

    def start_guarded(self):
        server = self.start()
        self.assertNotIn("http2_guard", server.log_text())
        self.serves(server)
        return server

    def start_unguarded(self):
        server = self.start(server_class=UnguardedServer)
        self.assertIn("http2_guard", server.log_text())
        self.serves(server)
        return server

    def assert_bounded(self, what, server, before):
        self.serves(server)
        extra = self.peak(server) - before
        print(f"S13: {what}: {extra / MIB:.0f} MiB")
        self.assertLess(extra, BOUND)

    def flood(self, what, bursts, count):
        """Four connections send `count` bursts each, and again whenever they
        are cut, which must happen."""
        server = self.start_guarded()
        before = self.peak(server)
        floods = [self.new_flood(server) for _ in range(4)]
        numbers = [0] * 4
        for _ in range(count):
            for i, flood in enumerate(floods):
                kept = flood.send(bursts(numbers[i]))
                numbers[i] = numbers[i] + 10 if kept else 0
        for flood in floods:
            if flood.cuts == 0:
                flood.await_cut()
        self.assert_bounded(what, server, before)
        return server

    def control(self, bursts, most):
        """One connection passes the bound of the server without its mends."""
        server = self.start_unguarded()
        before = self.peak(server)
        flood = self.new_flood(server)
        for number in range(0, 10 * most, 10):
            self.assertTrue(flood.send(bursts(number)), "cut")
            if self.peak(server) - before > BOUND:
                break
        wait_until(lambda: self.peak(server) - before > BOUND,
                   "the unguarded server to pass the bound")

    def test_s13_headers_that_unpack_to_gigabytes(self):
        self.flood("bombs of headers", bombs, 200)
        self.control(bombs, 200)

    def test_s13_headers_in_endless_parts(self):
        self.flood("headers in endless parts", endless_headers, 1000)
        self.control(endless_headers, 2000)

    def test_s13_calls_that_are_reset_at_once(self):
        # Without the mends, how much they cost depends on who is quicker: 0.9
        # to 5 GB, by hand.
        server = self.flood("resets", resets, 1000)
        self.assertGreater(
            metrics(server)["qkscope_connections_cut_total"][""], 0)

    def test_s13_calls_that_are_reset_at_once_over_tls(self):
        authority = Authority(self.folder, "ours")
        pair = authority.issue("server", "qkscoped",
                               "DNS:localhost,IP:127.0.0.1")
        server = self.start(PATIENT + f"""tls {{
            certificate_file: "{pair.cert}" key_file: "{pair.key}" }}""",
                            client_flags=client_flags(authority))
        before = self.peak(server)
        context = client_context(authority)
        flood = Flood(server, lambda address: tls_connect(address, context))
        self.addCleanup(flood.close)
        for number in range(0, 10_000, 10):
            if not flood.send(resets(number)):
                break
        flood.await_cut()
        self.assert_bounded("resets over TLS", server, before)

    def test_s13_calls_without_a_message(self):
        server = self.start_guarded()
        before = self.peak(server)
        floods = [self.new_flood(server) for _ in range(100)]
        for flood in floods:
            for number in range(0, 1000, 10):
                if not flood.send(open_calls(number)):
                    break
        self.await_metrics(server, "cut connections", lambda values: (
            values["qkscope_connections_cut_total"][""] > 0))
        self.assert_bounded("100,000 calls without a message", server, before)

    def test_s13_connections_that_end_at_once(self):
        # Each is below every limit on a connection, and takes the server longer
        # than the client: without a limit on those that have ended, this costs
        # 400 MiB and thousands of descriptors.
        server = self.start_guarded()
        before = self.peak(server)
        descriptors = []
        burst = b"".join(resets(number) + open_calls(number + 10)
                         for number in range(0, 300, 20))
        for number in range(4000):
            flood = Flood(server)
            flood.send(burst)
            flood.close()
            if number % 100 == 0:
                descriptors.append(open_files(server.process.pid))
        start = time.monotonic()
        self.assert_bounded("connections that end at once", server, before)
        print(f"S13: at most {max(descriptors)} descriptors; then a call in "
              f"{time.monotonic() - start:.1f} s")

    def test_s13_messages_without_an_end(self):
        server = self.start_guarded()
        before = self.peak(server)
        senders = [HalfMessages(server, 100) for _ in range(4)]
        for sender in senders:
            self.addCleanup(sender.socket.close)
        cut = 0
        until = time.monotonic() + PATIENCE_S
        while senders:
            self.assertLess(time.monotonic(), until, "nobody is cut")
            for sender in list(senders):
                try:
                    sender.step()
                except ConnectionError:
                    cut += 1
                    sender.socket.close()
                    senders.remove(sender)
            if cut:
                break
        # What has come, and what sockets hold.
        self.serves(server)
        extra = self.peak(server) - before
        print(f"S13: messages without an end: {extra / MIB:.0f} MiB")
        self.assertLess(extra, BOUND + 128 * MIB)

    def test_s13_messages_that_unpack(self):
        # gRPC would unpack it first, and then find it too large.
        server = self.start_guarded()
        before = self.peak(server)
        packed = gzip.compress(bytes(60 * MIB))
        self.assertLess(len(packed), 65_000)  # what may be sent at once
        connection = self.connection(server)
        connection.socket.sendall(
            opened(1, b"\0" + string(b"grpc-encoding") + string(b"gzip"))
            + frame(DATA, 0, 1, b"\1" + struct.pack(">I", len(packed)))
            + b"".join(frame(DATA, 0, 1, packed[at:at + 16384])
                       for at in range(0, len(packed), 16384))
            + frame(DATA, END_STREAM, 1, b""))
        answer = connection.finish(1)
        self.assertIn(b"grpc-status\x0212", answer.headers)  # UNIMPLEMENTED
        self.serves(server)
        self.assertLess(self.peak(server) - before, 16 * MIB)


if __name__ == "__main__":
    unittest.main()
